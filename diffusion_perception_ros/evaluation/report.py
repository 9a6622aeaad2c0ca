"""Self-contained HTML reports: pictures first, then accuracy, time and what it was measured with."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, Template, select_autoescape
from markupsafe import Markup

from diffusion_perception_ros.datasets import Skipped
from diffusion_perception_ros.evaluation.charts import histogram, stage_bars
from diffusion_perception_ros.evaluation.figures import Tile, frame_tiles
from diffusion_perception_ros.evaluation.output import write_text
from diffusion_perception_ros.evaluation.run import Evaluation, Frame
from diffusion_perception_ros.evaluation.summary import ALL, MethodScores, Summary, percentiles
from diffusion_perception_ros.evaluation.tables import (
    HEADLINE,
    METHOD_TITLES,
    METRIC_TITLES,
    TASK_TITLES,
    best_value,
    format_value,
    is_model,
    metric_columns,
)
from diffusion_perception_ros.inference.card import Label, ModelCard


REPORT_NAME = "report.html"
HEADLINE_METHODS = ("model_metric", "model_affine", "model")
"""What the top of the page shows of a task: the first of these that was scored."""
TASK_NOTES = {
    "depth": "Baselines never look at the picture and are fitted to each picture's own ground truth. “Affine-aligned” "
    "fits one scale and one shift per picture before scoring.",
    "normals": "Ground truth: planes fitted to 21 × 21 pixels of the sensor's depth nearer than 2 m, where normals "
    "are not given.",
    "semantic": "Classes of the data set that the model can name; the majority baselines know the true majority of "
    "each picture, and of each of its rows.",
    "instances": "Coverage: best overlap (IoU) of every true object, averaged. Found: share of objects overlapped by "
    "at least a half.",
}


@dataclass
class Fact:
    """A number at the top of the page."""

    value: str
    label: str
    note: str = ""


@dataclass
class Chart:
    title: str
    svg: Markup
    note: str = ""


@dataclass
class TableView:
    """A table ready to print: header cells, then rows of (title, cells, is the model, is the total)."""

    title: str
    note: str
    header: list[str]
    rows: list[tuple[str, list[tuple[str, bool]], bool, bool]]
    """A cell is its text and whether it is the best of its column."""


@dataclass
class FrameView:
    name: str
    note: str
    tiles: list[Tile]
    columns: int = 0
    """Tiles in a row, 0 = as many as suit their number."""


@dataclass
class Page:
    """Everything a report shows."""

    title: str
    subtitle: str
    facts: list[Fact] = field(default_factory=list)
    frames: list[FrameView] = field(default_factory=list)
    tables: list[TableView] = field(default_factory=list)
    scale_charts: list[Chart] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    sections: dict[str, dict[str, str]] = field(default_factory=dict)
    """Title to name to value: the model card, the environment."""
    problems: list[Skipped] = field(default_factory=list)


def write_evaluation_report(folder: Path, result: Evaluation, environment: Mapping[str, str]) -> Path:
    """Writes `report.html` of an evaluation run; the pictures are `result.frames`.

    Raises:
        InputError: the folder cannot be written.
    """
    summary = result.summary
    stages = dict.fromkeys(stage for image in result.images for stage in image.timings)
    times = {
        stage: [1000 * image.timings[stage] for image in result.images if stage in image.timings] for stage in stages
    }
    totals = [1000 * sum(image.timings.values()) for image in result.images if image.timings]
    page = Page(
        title=f"{result.model.name} on {Path(result.data).name}",
        subtitle=f"{len(result.images)} pictures of {result.data}",
        facts=accuracy_facts(summary),
        frames=frame_views(result.frames, result.model.labels),
        tables=table_views(summary),
        sections={"Model": card_rows(result.model), "Measured on": dict(environment)},
        problems=result.skipped + result.failed,
    )
    if totals:
        page.facts.append(Fact(f"{percentiles(totals)['p50']:.0f} ms", "per picture", "median, prediction only"))
        page.charts = time_charts("Time per picture", totals, times)
    return write_page(folder / REPORT_NAME, page)


def write_page(path: Path, page: Page) -> Path:
    """Renders a page to a file and returns its path.

    Raises:
        InputError: the file cannot be written.
    """
    now = datetime.datetime.now(datetime.timezone.utc)
    write_text(path, _template().render(page=page, made=f"{now:%Y-%m-%d %H:%M} UTC"))
    return path


def accuracy_facts(summary: Summary) -> list[Fact]:
    """Per task the model's headline number beside that of the best baseline."""
    facts = []
    for task, groups in summary.items():
        rows = groups[ALL]
        metric = HEADLINE[task][0]
        model = next((method for method in HEADLINE_METHODS if method in rows), None)
        trivial = _best_of(metric, {method: scores for method, scores in rows.items() if not is_model(method)})
        if model is None or trivial is None:
            continue
        unit = "°" if METRIC_TITLES[metric][0].endswith("°") else ""
        title = METRIC_TITLES[metric][0].removesuffix(" °")
        facts.append(
            Fact(
                f"{format_value(metric, rows[model][metric])}{unit}",
                f"{TASK_TITLES[task]}, {title}"
                + (f" ({METHOD_TITLES[model].removeprefix('model, ')})" if model != "model" else ""),
                f"best trivial answer ({METHOD_TITLES[trivial]}): {format_value(metric, rows[trivial][metric])}{unit}",
            )
        )
    return facts


def _best_of(metric: str, rows: MethodScores) -> str | None:
    best = best_value(metric, rows)
    return next((method for method, scores in rows.items() if scores.get(metric) == best), None)


def frame_views(frames: Iterable[Frame], labels: Sequence[Label]) -> list[FrameView]:
    """The pictures of every frame to show."""
    return [
        FrameView(frame.sample.name, _frame_note(frame), frame_tiles(frame.sample, frame.prediction, labels))
        for frame in frames
    ]


def _frame_note(frame: Frame) -> str:
    height, width = frame.sample.rgb.shape[:2]
    total = sum(frame.prediction.timings.values())
    return f"{width} × {height}" + (f", {1000 * total:.0f} ms" if total else "")


def table_views(summary: Summary) -> list[TableView]:
    """Per task the methods by metrics over all pictures, then the groups by methods."""
    views = []
    for task, groups in summary.items():
        views.append(_overview(task, groups[ALL]))
        if len(groups) > 2:
            views.append(_per_group(task, groups))
    return views


def _overview(task: str, rows: MethodScores) -> TableView:
    columns = metric_columns(task, rows)
    body = []
    for method, scores in rows.items():
        values = [scores.get(metric, math.nan) for metric in columns]
        cells = [
            (format_value(metric, value), value == best_value(metric, rows))
            for metric, value in zip(columns, values, strict=True)
        ]
        body.append((METHOD_TITLES[method], cells, is_model(method), False))
    images = max(int(scores["images"]) for scores in rows.values())
    header = [f"{METRIC_TITLES[metric][0]} {'↑' if METRIC_TITLES[metric][1] > 0 else '↓'}" for metric in columns]
    return TableView(f"{TASK_TITLES[task]}, mean over {images} pictures", TASK_NOTES[task], header, body)


def _per_group(task: str, groups: Mapping[str, MethodScores]) -> TableView:
    first, second = HEADLINE[task]
    methods = list(groups[ALL])
    body = []
    for group, rows in groups.items():
        cells = [
            (
                f"{format_value(first, rows[method][first])} / {format_value(second, rows[method][second])}",
                rows[method][first] == best_value(first, rows),
            )
            if method in rows
            else ("–", False)
            for method in methods
        ]
        body.append((group, cells, False, group == ALL))
    title = f"{TASK_TITLES[task]} per group, {METRIC_TITLES[first][0]} / {METRIC_TITLES[second][0]}"
    return TableView(title, "", [METHOD_TITLES[method] for method in methods], body)


def time_charts(title: str, values: Sequence[float], stages: Mapping[str, Sequence[float]]) -> list[Chart]:
    """A histogram of the total and the median of every stage, in milliseconds."""
    medians = {stage: percentiles(times)["p50"] for stage, times in stages.items() if times}
    charts = [Chart(title, Markup(histogram(values, "ms")), f"{len(values)} pictures")]
    if medians:
        charts.append(Chart("Median time per stage", Markup(stage_bars(medians, "ms"))))
    return charts


def card_rows(card: ModelCard) -> dict[str, str]:
    """What the model card says that a reader of a report wants to know."""
    depth = card.output("depth")
    rows = {
        "name": f"{card.name} ({card.family})",
        "description": card.description,
        "tasks": ", ".join(card.tasks),
        "training data": card.source.training_data,
        "licence": card.licence,
        "precision": card.precision,
    }
    if depth is not None:
        rows["depth"] = depth.quantity.replace("_", " ")
    if card.labels:
        rows["labels"] = f"{len(card.labels)}: " + ", ".join(label.name for label in card.labels)
    return rows


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=select_autoescape(default=True, default_for_string=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")
