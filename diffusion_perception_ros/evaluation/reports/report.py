"""Self-contained HTML reports: images first, then accuracy, time and what it was measured with."""

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
from diffusion_perception_ros.evaluation.reports.charts import histogram, stage_bars
from diffusion_perception_ros.evaluation.reports.figures import METRES, frame_tiles
from diffusion_perception_ros.evaluation.reports.panels import Panel
from diffusion_perception_ros.evaluation.run import EvaluatedFrame, Evaluation
from diffusion_perception_ros.evaluation.summary import ALL, MethodScores, Summary, percentiles
from diffusion_perception_ros.evaluation.tables import (
    HEADLINE,
    METHOD_TITLES,
    METRIC_TITLES,
    TASK_TITLES,
    best_value,
    format_value,
    image_count,
    is_best,
    is_model,
    metric_columns,
    metric_title,
)
from diffusion_perception_ros.files import write_text
from diffusion_perception_ros.inference.card import ModelCard


REPORT_NAME = "report.html"
HEADLINE_METHODS = ("model_metric", "model_affine", "model")
"""What the top of the page shows of a task: the first of these that was scored."""
OWN_METHODS = ("model_affine", "model")
"""The same where a part of the true depth was given to the model: what it says without."""
NO_TRUTH = "no ground truth of anything that the model predicts"
TASK_NOTES = {
    "depth": "Baselines never look at the image and are fitted to each image's own ground truth. “Affine-aligned” "
    "fits one scale and one shift per image before scoring.",
    "confidence": "AUSE: area between the curves of the error that is left when the least sure pixels, and when the "
    "worst, are taken away. Calibration error: distance of confidence and share of pixels within a factor of 1.25.",
    "normals": "Ground truth: planes fitted to 21 × 21 pixels of the sensor's depth nearer than 2 m, where normals "
    "are not given.",
    "semantic": "Classes of the data set that the model can name; the majority baselines know the true majority of "
    "each image, and of each of its rows.",
    "instances": "Coverage: best overlap (IoU) of every true object, averaged. Found: share of objects overlapped by "
    "at least a half.",
    "flow": "EPE: mean distance of the vectors' ends in pixels. Outliers: share that is off by more than 3 pixels and "
    "5% of the vector's length.",
    "mask": "IoU of the answer to one prompt per image.",
    "alpha": "MAE: mean absolute error of the opacity. SAD: its sum over the image, in thousands.",
    "keypoints": "PCK: share of the visible true joints with a point within 0.2 of the person's size. Precision: "
    "share of the points found that lie on a true joint.",
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
    """A cell is its text and whether it is the best of those it competes with."""


@dataclass
class FrameView:
    name: str
    note: str
    tiles: list[Panel]
    aspect: float = 4 / 3
    """Width over height of the images."""
    is_strip: bool = False
    """Tiles are frames of a video side by side, each as wide as the page."""


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
    """Writes `report.html` of an evaluation run; the images are `result.frames`.

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
        subtitle=f"{image_count(len(result.images))} of {result.data}",
        facts=_facts(summary, result.sparse),
        frames=frame_views(result.frames, result.model, metres_caption(result.sparse)),
        tables=table_views(summary),
        sections={"Model": card_rows(result.model), "Measured on": dict(environment)},
        problems=result.skipped + result.failed + [Skipped(name, NO_TRUTH) for name in result.unscored],
    )
    if totals:
        page.facts.append(Fact(f"{percentiles(totals)['p50']:.0f} ms", "per image", "median, prediction only"))
        page.charts = time_charts("Time per image", totals, times)
    return write_page(folder / REPORT_NAME, page)


def write_page(path: Path, page: Page) -> Path:
    """Renders a page to a file and returns its path.

    Raises:
        InputError: the file cannot be written.
    """
    now = datetime.datetime.now(datetime.timezone.utc)
    write_text(path, _template().render(page=page, made=f"{now:%Y-%m-%d %H:%M} UTC"))
    return path


def _facts(summary: Summary, sparse: float | None) -> list[Fact]:
    """Headlines; metres that come from the ground truth are told apart from what the model knows alone."""
    scores = summary.get("depth", {}).get(ALL, {}).get("model_metric")
    if not sparse or scores is None:
        return accuracy_facts(summary)
    note = f"completed from {percent(sparse)} of the true depth, scored on the rest"
    given = Fact(format_value("absrel", scores["absrel"]), f"Depth in metres, {metric_title('absrel')}", note)
    return [given, *accuracy_facts(summary, OWN_METHODS)]


def accuracy_facts(summary: Summary, methods: Sequence[str] = HEADLINE_METHODS) -> list[Fact]:
    """Per task the model's headline number beside that of the best baseline.

    Args:
        methods: The first of these that was scored is the headline.
    """
    facts = []
    for task, groups in summary.items():
        rows = groups[ALL]
        metric = HEADLINE[task][0]
        model = next((method for method in methods if method in rows), None)
        if model is None:
            continue
        unit = "°" if METRIC_TITLES[metric][0].endswith("°") else ""
        title = f"{TASK_TITLES[task]}, {metric_title(metric).replace(' °', '')}"
        if model != "model":
            title += f" ({METHOD_TITLES[model].removeprefix('model, ')})"
        trivial = _best_of(metric, {method: scores for method, scores in rows.items() if not is_model(method)})
        note = ""
        if trivial is not None:
            note = (
                f"best trivial answer, {METHOD_TITLES[trivial]}: {format_value(metric, rows[trivial][metric])}{unit}"
            )
        facts.append(Fact(f"{format_value(metric, rows[model][metric])}{unit}", title, note))
    return facts


def _best_of(metric: str, rows: MethodScores) -> str | None:
    best = best_value(metric, rows)
    return next((method for method, scores in rows.items() if scores.get(metric) == best), None)


def metres_caption(sparse: float | None) -> str:
    """How metric depth got its metres, given the share of the true depth that the model knew."""
    return f"in metres, completed from {percent(sparse)} of the true depth" if sparse else METRES


def percent(share: float) -> str:
    """0.001 as 0.1%."""
    return f"{100 * share:.3g}%"


def frame_views(frames: Iterable[EvaluatedFrame], card: ModelCard, metres: str = METRES) -> list[FrameView]:
    """The images of every frame to show; `metres` is the caption of metric depth."""
    return [
        FrameView(
            frame.sample.name,
            _frame_note(frame),
            frame_tiles(frame.sample, frame.prediction, card, frame.question, metres),
            frame.sample.rgb.shape[1] / frame.sample.rgb.shape[0],
        )
        for frame in frames
    ]


def _frame_note(frame: EvaluatedFrame) -> str:
    height, width = frame.sample.rgb.shape[:2]
    total = sum(frame.prediction.timings.values())
    return f"{width} × {height}" + (f", {1000 * total:.0f} ms" if total else "")


def table_views(summary: Summary) -> list[TableView]:
    """Per task the methods by metrics over all images, then the groups by methods."""
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
        cells = [
            (format_value(metric, scores.get(metric, math.nan)), is_best(metric, scores, rows)) for metric in columns
        ]
        body.append((METHOD_TITLES[method], cells, is_model(method), False))
    images = max(int(scores["images"]) for scores in rows.values())
    header = [metric_title(metric) for metric in columns]
    return TableView(f"{TASK_TITLES[task]}, mean over {image_count(images)}", TASK_NOTES[task], header, body)


def _per_group(task: str, groups: Mapping[str, MethodScores]) -> TableView:
    """One row per group, the best method of each in bold."""
    metrics = tuple(dict.fromkeys(HEADLINE[task]))
    methods = list(groups[ALL])
    body = []
    for group, rows in groups.items():
        images = max(int(scores["images"]) for scores in rows.values())
        cells = [(str(images), False)]
        for method in methods:
            scores = rows.get(method)
            text = " / ".join(format_value(metric, scores[metric]) for metric in metrics) if scores else "–"
            cells.append((text, scores is not None and is_best(metrics[0], scores, rows)))
        body.append((group, cells, False, group == ALL))
    title = f"{TASK_TITLES[task]} per group, {' / '.join(map(metric_title, metrics))}"
    return TableView(title, "", ["images", *(METHOD_TITLES[method] for method in methods)], body)


def time_charts(title: str, values: Sequence[float], stages: Mapping[str, Sequence[float]]) -> list[Chart]:
    """A histogram of the total and the median of every stage, in milliseconds."""
    medians = {stage: percentiles(times)["p50"] for stage, times in stages.items() if times}
    charts = [Chart(title, Markup(histogram(values, "ms")), image_count(len(values)))]
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
