"""Chart of accuracy against compute at test time: one curve per ensemble size, the Pareto front marked."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from diffusion_perception_ros.evaluation.tables import HEADLINE, METRIC_TITLES, TASK_TITLES
from diffusion_perception_ros.files import write_bytes
from diffusion_perception_ros.research.compute_scaling import Record


PANEL = (4.6, 3.3)
"""Width and height in inches."""
DPI = 130
FRONT_COLOR = "#d62728"


@dataclass(frozen=True)
class Row:
    """One metric of one task: a row of panels."""

    task: str
    metric: str
    part: str
    """Which part of a record holds it: `scores` or `confidence`."""

    @property
    def title(self) -> str:
        """For the axis."""
        if self.part == "confidence":
            return f"{TASK_TITLES[self.task]}: AUSE of the spread ↓"
        title, direction = METRIC_TITLES[self.metric]
        return f"{TASK_TITLES[self.task]}: {title} {'↑' if direction > 0 else '↓'}"

    @property
    def sign(self) -> int:
        """-1 where larger is better."""
        return 1 if self.part == "confidence" else -METRIC_TITLES[self.metric][1]

    def value(self, record: Record) -> float:
        """NaN where the setting has none."""
        value = record[self.part].get(self.task, {}).get(self.metric)
        return math.nan if value is None else float(value)


def pareto_front(records: Sequence[Record], row: Row) -> list[Record]:
    """The settings that no other one equals or beats for the same compute or less, from cheap to dear."""
    front: list[Record] = []
    scored = [record for record in records if math.isfinite(row.value(record))]
    for record in sorted(scored, key=lambda item: (item["network_evaluations"], row.sign * row.value(item))):
        if not front or row.sign * row.value(record) < row.sign * row.value(front[-1]):
            front.append(record)
    return front


def rows_of(records: Sequence[Record]) -> list[Row]:
    """What the records can show: the first headline metric of every task, then how good the spreads are."""
    tasks = dict.fromkeys(task for record in records for task, scores in record["scores"].items() if scores)
    sure = dict.fromkeys(task for record in records for task in record["confidence"])
    rows = [Row(task, HEADLINE[task][0], "scores") for task in tasks]
    rows += [Row(task, "ause", "confidence") for task in sure]
    return [row for row in rows if any(math.isfinite(row.value(record)) for record in records)]


def write_chart(path: Path, records: Sequence[Record], title: str) -> None:
    """Draws a PNG: a row of panels per metric, a column per noise schedule and merging.

    Raises:
        InputError: the file cannot be written.
    """
    rows = rows_of(records)
    columns = _columns(records)
    sizes = sorted({record["ensemble_size"] for record in records})
    width, height = PANEL[0] * len(columns), PANEL[1] * max(len(rows), 1)
    figure = Figure(figsize=(width, height + 1.0), layout="constrained")
    grid = figure.subplots(max(len(rows), 1), len(columns), squeeze=False, sharex=True, sharey="row")
    for row, axes_of_row in zip(rows, grid, strict=False):
        front = pareto_front(records, row)
        for axes, (name, members) in zip(axes_of_row, columns.items(), strict=True):
            _draw(axes, row, members, sizes, front)
            if row is rows[0]:
                axes.set_title(name, fontsize=9)
            if row is rows[-1]:
                axes.set_xlabel("network evaluations per image")
        axes_of_row[0].set_ylabel(row.title)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=3, fontsize=8, title="numbers: steps", title_fontsize=8
    )
    figure.suptitle(title, fontsize=9, wrap=True)
    FigureCanvasAgg(figure)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=DPI)
    write_bytes(path, data.getvalue())


def _draw(axes: Axes, row: Row, members: Sequence[Record], sizes: Sequence[int], front: Sequence[Record]) -> None:
    """One panel."""
    for number, size in enumerate(sizes):
        curve = sorted(
            (record for record in members if record["ensemble_size"] == size and math.isfinite(row.value(record))),
            key=lambda record: record["network_evaluations"],
        )
        color = colormaps["viridis"](0.8 * number / max(len(sizes) - 1, 1))
        x, y = [record["network_evaluations"] for record in curve], [row.value(record) for record in curve]
        axes.plot(x, y, "o-", color=color, markersize=4, linewidth=1.4, label=f"ensemble of {size}")
        for record in curve:
            place = record["network_evaluations"], row.value(record)
            axes.annotate(str(record["steps"]), place, (3, 4), textcoords="offset points", fontsize=6.5, color=color)
    marked = [record for record in front if record in members]
    axes.plot(
        [record["network_evaluations"] for record in marked],
        [row.value(record) for record in marked],
        "o",
        markersize=10,
        fillstyle="none",
        markeredgecolor=FRONT_COLOR,
        label="Pareto front of all",
    )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(which="major", alpha=0.3)


def _columns(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Title → settings of one noise schedule and merging; a single member belongs to every merging."""
    samplers: list[Any] = [dict(pairs) for pairs in dict.fromkeys(_key(record) for record in records)]
    mergings = list(dict.fromkeys(record["merging"] for record in records if record["merging"])) or [None]
    columns = {}
    for sampler in samplers:
        for merging in mergings:
            words = [str(value) for value in sampler.values()] + ([merging.replace("_", " ")] if merging else [])
            columns[", ".join(words)] = [
                record for record in records if record["sampler"] == sampler and record["merging"] in (merging, None)
            ]
    return {name: members for name, members in columns.items() if members}


def _key(record: Record) -> tuple[tuple[str, Any], ...]:
    return tuple(record["sampler"].items())
