"""`diffusion-perception bench`: benchmarks, as ratios measured side by side in one run."""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from diffusion_perception_ros.cli.benchmarks import cameras, flicker, live, messages, metric_scale, prediction
from diffusion_perception_ros.cli.benchmarks.comparison import Comparison
from diffusion_perception_ros.cli.benchmarks.goals import as_markdown, ratios
from diffusion_perception_ros.cli.common import TableConsole, add_backend_arguments, add_model_argument
from diffusion_perception_ros.cli.processes import ChildError
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.evaluation.environment import environment
from diffusion_perception_ros.files import write_json


SECTIONS = (
    "around",
    "decoding",
    "encoding",
    "estimator",
    "models",
    "scale",
    "live",
    "cameras",
    "flicker",
    "world",
    "training",
)


ROUNDS = 3
"""Of the section `around`, whose variants take turns."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_argument(parser)
    add_backend_arguments(parser, threads=False)
    parser.add_argument("--only", action="append", choices=SECTIONS, help="only this section (repeatable)")
    parser.add_argument("--seconds", type=float, default=1.5, help="measuring time per variant (default: %(default)s)")
    parser.add_argument(
        "--docs", type=Path, metavar="FILE", help="write the goals and figures of the section 'around' as Markdown"
    )
    parser.add_argument(
        "--json", type=Path, default=Path("out/bench/bench.json"), metavar="FILE", help="default: %(default)s"
    )


def run(args: argparse.Namespace) -> int:
    sections: dict[str, Callable[[], list[Comparison]]] = {
        "decoding": functools.partial(messages.decoding, args.seconds),
        "encoding": functools.partial(messages.encoding, args.seconds),
        "estimator": functools.partial(prediction.estimator, args.model, args.backend, args.seconds),
        "models": functools.partial(prediction.models, args.backend, args.seconds),
        "scale": functools.partial(metric_scale.alignment, args.model, args.backend, args.seconds),
        "live": functools.partial(live.live, args.model, args.backend, args.seconds),
        "cameras": functools.partial(cameras.cameras, args.model, args.backend, args.seconds),
        "world": functools.partial(_training_side, "world", args.seconds),
        "training": functools.partial(_training_side, "training", args.seconds),
        "flicker": functools.partial(flicker.flicker, args.model, args.backend, args.seconds),
    }
    around: dict[str, Any] = {}
    sections["around"] = functools.partial(_around, args.model, around)
    results: dict[str, list[Comparison]] = {}
    left_out: dict[str, str] = {}
    console = Console(stderr=True)
    for name in args.only or SECTIONS:
        with console.status(f"measuring: {name}"):
            try:
                results[name] = sections[name]()
            except (ImportError, InputError, ChildError, RuntimeError) as error:
                left_out[name] = str(error)
    if not results:
        raise InputError("nothing could be measured: " + "; ".join(f"{key}: {why}" for key, why in left_out.items()))
    _print(results)
    goals = ratios(around) if around else {}
    _print_goals(goals)
    if args.docs and around:
        machine = environment()
        text = as_markdown(around, goals, str(machine.get("processor", "this machine")), str(args.model))
        args.docs.write_text(text, encoding="utf-8")
    write_json(
        args.json,
        {
            "ratios": goals,
            "around": around,
            "sections": _as_dict(results),
            "left_out": left_out,
            "environment": environment(),
        },
    )
    print(args.json)
    for name, reason in left_out.items():
        print(f"diffusion-perception bench: {name} left out: {reason}", file=sys.stderr)
    return 0


def _around(model: str, results: dict[str, Any]) -> list[Comparison]:
    """In a process of its own, which has a node's memory settings; the raw figures go into `results`."""
    module = "diffusion_perception_ros.cli.benchmarks.around_network"
    results.update(_json_of([sys.executable, "-m", module, str(model), str(ROUNDS)]))
    results["startup_cpu_s"] = min(_startup_cpu(model) for _ in range(2))
    return [
        Comparison(f"CPU per image, {size}", "ms", dict(sorted(rows["cpu_ms"].items(), reverse=True)))  # bare: last
        for size, rows in results.items()
        if isinstance(rows, dict) and "cpu_ms" in rows
    ]


def _startup_cpu(model: str) -> float:
    """Seconds of CPU until a node is active, its network warmed up."""
    module = "diffusion_perception_ros.cli.benchmarks.startup"
    return float(_json_of([sys.executable, "-m", module, str(model)])["cpu_s"])


def _json_of(command: list[str]) -> dict[str, Any]:
    """The last line of what a program prints.

    Raises:
        RuntimeError: it failed; the message has its last words.
    """
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    if done.returncode or not done.stdout.strip():
        raise RuntimeError(done.stderr.strip()[-500:] or f"{command[2]} ended with {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _print_goals(goals: dict[str, dict[str, Any]]) -> None:
    if not goals:
        return
    table = Table(title="Goals", title_justify="left")
    for column in ("ratio", "measured", "goal", "reached"):
        table.add_column(column)
    for name, row in goals.items():
        value = "not measured" if row["value"] is None else f"{row['value']:.3g}"
        table.add_row(name, value, f"{row['goal']:g}", {True: "yes", False: "no", None: row["note"]}[row["ok"]])
    TableConsole().print(table)


def _training_side(name: str, seconds: float) -> list[Comparison]:
    """What needs the `train` extra: without it, it is left out with the import's reason."""
    from diffusion_perception_ros.cli.benchmarks import training

    measured: list[Comparison] = getattr(training, name)(seconds)
    return measured


def _as_dict(results: dict[str, list[Comparison]]) -> dict[str, object]:
    return {name: [vars(entry) | {"ratios": entry.ratios()} for entry in entries] for name, entries in results.items()}


def _print(results: dict[str, list[Comparison]]) -> None:
    table = Table(title="Benchmarks (ratio: times better than the last of its block)", title_justify="left")
    for column in ("what", "variant", "median", "ratio"):
        table.add_column(column, justify="right" if column in ("median", "ratio") else "left")
    for entries in results.values():
        for entry in entries:
            ratios = entry.ratios()
            for index, (variant, value) in enumerate(entry.values.items()):
                title = entry.title if index == 0 else ""
                table.add_row(title, variant, f"{value:.3g} {entry.unit}", f"{ratios[variant]:.3g}")
            for note in entry.notes:
                table.add_row("", f"[dim]{note}[/dim]", "", "")
            table.add_section()
    TableConsole().print(table)
