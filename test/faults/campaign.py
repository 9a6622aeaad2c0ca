"""Runs the rows of the campaign: `python -m faults [--rows WORDS] [--quick] [-o FOLDER] [--table FILE]`.

A row passes if its own expectation holds, and if afterwards a good image comes back, nothing in the log is a
traceback, the log did not flood, and memory, threads and handles are what they were before.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from faults.bench import Bench, Resources, resources


MOST_LOG = 100_000
"""Bytes that one fault may add to the log."""
SETTLED = 20.0
"""Seconds after which threads and handles that come and go with neighbours are gone."""


class Skip(Exception):
    """The row cannot run here; the message says why."""


@dataclass(frozen=True)
class Row:
    """One fault."""

    name: str
    expectation: str
    action: Callable[[Bench], str]
    """Does it, checks what is special to it and returns the reaction in words."""
    quick: bool = False
    """Also part of `make test`."""
    memory_mb: float = 50.0
    """By which the node may grow."""
    settings: dict[str, Any] | None = None
    """Of the node (`Bench.use`); None: the row starts its own or needs none."""


ROWS: list[Row] = []


def row(name: str, expectation: str, settings: dict[str, Any] | None = None, **options: Any) -> Callable[[Any], Any]:
    """Adds a function to the campaign. `settings=None` is the plain model; `NO_NODE`: the row starts what it needs."""

    def add(action: Callable[[Bench], str]) -> Callable[[Bench], str]:
        own = None if settings is NO_NODE else (settings or {"model": "plain"})
        ROWS.append(Row(name, expectation, action, settings=own, **options))
        return action

    return add


NO_NODE: dict[str, Any] = {}


@dataclass
class Result:
    """What came of a row."""

    name: str
    expectation: str
    outcome: str
    """passed, failed or skipped."""
    reaction: str
    recovery_s: float | None = None
    seconds: float = 0.0
    before: Resources | None = None
    after: Resources | None = None


def run_row(bench: Bench, entry: Row) -> Result:
    """Runs one row; whatever fails is in the result."""
    start = time.monotonic()
    result = Result(entry.name, entry.expectation, "passed", "")
    try:
        if entry.settings is None:
            result.reaction = entry.action(bench)
        else:
            _run_on_node(bench, entry, result)
    except Skip as reason:
        result.outcome, result.reaction = "skipped", str(reason)
    except Exception as error:
        detail = "" if isinstance(error, AssertionError) else f" at {traceback.extract_tb(error.__traceback__)[-1]}"
        result.outcome, result.reaction = "failed", f"{type(error).__name__}: {error}{detail}"
        bench.end_hard()
    result.seconds = round(time.monotonic() - start, 1)
    return result


def _run_on_node(bench: Bench, entry: Row, result: Result) -> None:
    bench.use(**(entry.settings or {}))
    bench.recover()
    log = len(bench.node.log)
    result.before = resources(bench.node.pid)
    result.reaction = entry.action(bench)
    assert bench.node.is_running, f"the node ended: {bench.node.log[-2000:]}"
    result.recovery_s = round(bench.recover(), 2)
    written = bench.node.log[log:]
    assert "Traceback" not in written, f"a traceback in the log: {written[-2000:]}"
    # The middleware prints a line of its own for every damaged CDR, past the node's logger and its budget.
    own = sum(len(line) for line in written.splitlines() if line.startswith("["))
    assert own <= MOST_LOG, f"{own} bytes of log"
    result.after = _settled(bench, result.before)
    growth = result.after.memory_mb - result.before.memory_mb
    assert growth <= entry.memory_mb, f"memory grew by {growth:.0f} MB, {entry.memory_mb:.0f} are allowed"
    for what in ("threads", "handles"):
        more = getattr(result.after, what) - getattr(result.before, what)
        assert more <= 3, f"{more} more {what} than before"


def _settled(bench: Bench, before: Resources) -> Resources:
    deadline = time.monotonic() + SETTLED
    while True:
        now = resources(bench.node.pid)
        if time.monotonic() > deadline or (now.threads <= before.threads and now.handles <= before.handles):
            return now
        bench.ros.pause(0.5)


def table(results: Sequence[Result]) -> str:
    """A Markdown table of the results."""

    def held(resources: Resources | None) -> str:
        return f"{resources.memory_mb:.0f} / {resources.threads} / {resources.handles}" if resources else ""

    lines = [
        "| fault | expectation | outcome | reaction | recovery (s) | before (MB / threads / handles) | after |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        recovery = "" if result.recovery_s is None else f"{result.recovery_s:.2f}"
        reaction = " ".join(result.reaction.split()).replace("|", "\\|")
        cells = (result.name, result.expectation, result.outcome, reaction[:300], recovery)
        lines.append(f"| {' | '.join((*cells, held(result.before), held(result.after)))} |")
    return "\n".join(lines) + "\n"


def with_earlier(results: Sequence[Result], folder: Path) -> list[Result]:
    """The results in the order of the campaign, together with those of other rows that the folder has from before."""
    path = folder / "faults.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    by_name = {fields["name"]: Result(**fields) for fields in rows}
    for result in by_name.values():
        for moment in ("before", "after"):
            held = getattr(result, moment)
            setattr(result, moment, held and Resources(**held))
    by_name |= {result.name: result for result in results}
    return [by_name[entry.name] for entry in ROWS if entry.name in by_name]


def write_results(results: Sequence[Result], folder: Path, document: Path | None) -> None:
    """Writes `faults.json` and `faults.md`, and the table into a document between its markers."""
    folder.mkdir(parents=True, exist_ok=True)
    fields = {"machine": platform.platform(), "python": platform.python_version(), "rows": list(map(asdict, results))}
    (folder / "faults.json").write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")
    (folder / "faults.md").write_text(table(results), encoding="utf-8")
    if document is not None:
        text = document.read_text(encoding="utf-8")
        head, rest = text.split("<!-- faults: begin -->", 1)
        tail = rest.split("<!-- faults: end -->", 1)[1]
        passed = sum(result.outcome == "passed" for result in results)
        skipped = sum(result.outcome == "skipped" for result in results)
        summary = f"{passed} of {len(results)} rows passed, {skipped} skipped.\n\n"
        middle = f"<!-- faults: begin -->\n{summary}{table(results)}<!-- faults: end -->"
        document.write_text(head + middle + tail, encoding="utf-8")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="faults", description=__doc__)
    parser.add_argument("--rows", default="", help="only rows whose name contains one of these words, by commas")
    parser.add_argument("--quick", action="store_true", help="only the rows that are part of `make test`")
    parser.add_argument("-o", "--output", type=Path, default=Path("out/faults"), help="folder for faults.json and .md")
    parser.add_argument("--table", type=Path, help="document whose marked table is replaced")
    return parser.parse_args(arguments)


def chosen(words: str, quick: bool) -> list[Row]:
    """The rows to run, those with the same node beside each other."""
    wanted = [word.strip() for word in words.split(",") if word.strip()]
    rows = [
        entry for entry in ROWS if (entry.quick or not quick) and (not wanted or any(w in entry.name for w in wanted))
    ]
    order = {repr(entry.settings): index for index, entry in reversed(list(enumerate(rows)))}
    return sorted(rows, key=lambda entry: order[repr(entry.settings)])
