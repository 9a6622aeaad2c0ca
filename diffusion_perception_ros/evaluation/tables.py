"""The tables that `evaluate` and the demo print."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table

from diffusion_perception_ros.evaluation.summary import ALL, MethodScores, Summary
from diffusion_perception_ros.metrics.dense import Scores


TASK_TITLES = {
    "depth": "Depth",
    "confidence": "Confidence of the depth",
    "normals": "Surface normals",
    "semantic": "Segmentation",
    "instances": "Instances",
    "flow": "Optical flow",
    "mask": "Prompted mask",
    "alpha": "Opacity of the foreground",
    "keypoints": "Keypoints",
}
METHOD_TITLES = {
    "model_metric": "model, in metres",
    "model_scale": "model, scale-aligned",
    "model_affine": "model, affine-aligned",
    "model": "model",
    "constant": "constant",
    "row_plane": "row plane",
    "row_plane_inverse_depth": "row plane in 1/depth",
    "facing_camera": "facing the camera",
    "row_gradient": "row gradient",
    "majority_class": "majority class",
    "majority_class_per_row": "majority class per row",
    "one_instance": "one instance",
    "no_motion": "nothing moves",
    "whole_image": "whole image",
    "no_foreground": "no foreground",
}
METRIC_TITLES = {
    "absrel": ("AbsRel", -1),
    "rmse": ("RMSE m", -1),
    "delta1": ("δ1", 1),
    "delta2": ("δ2", 1),
    "delta3": ("δ3", 1),
    "ause": ("AUSE", -1),
    "ece": ("calibration error", -1),
    "mean": ("mean °", -1),
    "median": ("median °", -1),
    "below_11.25": ("< 11.25°", 1),
    "below_22.5": ("< 22.5°", 1),
    "below_30": ("< 30°", 1),
    "miou": ("mIoU", 1),
    "set_miou": ("mIoU of the set", 1),
    "accuracy": ("pixel accuracy", 1),
    "boundary_f1": ("boundary F1", 1),
    "coverage": ("coverage", 1),
    "found": ("found", 1),
    "epe": ("EPE px", -1),
    "outliers": ("outliers", -1),
    "iou": ("IoU", 1),
    "mae": ("MAE", -1),
    "sad": ("SAD / 1000", -1),
    "pck": ("PCK", 1),
    "precision": ("precision", 1),
}
"""Title and direction: 1 = larger is better."""
HEADLINE = {
    "depth": ("absrel", "delta1"),
    "confidence": ("ause", "ece"),
    "normals": ("mean", "below_11.25"),
    "semantic": ("miou", "boundary_f1"),
    "instances": ("coverage", "found"),
    "flow": ("epe", "outliers"),
    "mask": ("iou", "iou"),
    "alpha": ("mae", "sad"),
    "keypoints": ("pck", "precision"),
}
"""The two metrics of the table per group."""


UNDEFINED = "–"


def is_model(method: str) -> bool:
    """Whether a method is the model under one of its alignments, and not a baseline."""
    return method == "model" or method.startswith("model_")


def metric_columns(task: str, rows: MethodScores) -> list[str]:
    """Metrics of a task's table; `coverage` of depth only where it says something."""
    names = [name for name in METRIC_TITLES if any(name in scores for scores in rows.values())]
    if task == "depth" and all(scores.get("coverage", 1.0) == 1.0 for scores in rows.values()):
        names.remove("coverage")
    return names


def best_value(metric: str, rows: MethodScores) -> float:
    """The best mean of a metric over all methods; NaN if none has one."""
    values = [scores[metric] for scores in rows.values() if math.isfinite(scores.get(metric, math.nan))]
    if not values:
        return math.nan
    return max(values) if METRIC_TITLES[metric][1] > 0 else min(values)


def is_best(metric: str, scores: Scores, rows: MethodScores) -> bool:
    """Whether these scores are, as printed, the best of all methods in a metric."""
    text = format_value(metric, scores.get(metric, math.nan))
    return text != UNDEFINED and text == format_value(metric, best_value(metric, rows))


def metric_title(metric: str) -> str:
    """With an arrow to where the good values are."""
    title, direction = METRIC_TITLES[metric]
    return f"{title} {'↑' if direction > 0 else '↓'}"


def image_count(count: int) -> str:
    """1 image, 2 images."""
    return f"{count} image{'s' if count != 1 else ''}"


def format_value(metric: str, value: float) -> str:
    """Three decimals for shares and metres, one for degrees; a dash for what is not defined."""
    if not math.isfinite(value):
        return UNDEFINED
    return f"{value:.1f}" if metric in ("mean", "median") else f"{value:.3f}"


def tables(summary: Summary) -> Iterator[RenderableType]:
    """For every task a table of methods by metrics over all images, and one of groups by methods."""
    for task, groups in summary.items():
        yield _overview(task, groups[ALL])
        if len(groups) > 2:
            yield _per_group(task, groups)


def _overview(task: str, rows: MethodScores) -> Table:
    images = max(int(scores["images"]) for scores in rows.values())
    table = Table(
        title=f"{TASK_TITLES[task]}, mean over {image_count(images)}", title_justify="left", title_style="bold"
    )
    table.add_column("")
    columns = metric_columns(task, rows)
    for metric in columns:
        table.add_column(metric_title(metric), justify="right")
    for method, scores in rows.items():
        cells = [
            _bold(format_value(metric, scores.get(metric, math.nan)), is_best(metric, scores, rows))
            for metric in columns
        ]
        table.add_row(METHOD_TITLES[method], *cells, style=None if is_model(method) else "dim")
    return table


def _per_group(task: str, groups: dict[str, MethodScores]) -> Table:
    metrics = tuple(dict.fromkeys(HEADLINE[task]))
    title = f"{TASK_TITLES[task]} per group: {' / '.join(map(metric_title, metrics))}"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("group")
    table.add_column("images", justify="right")
    methods = list(groups[ALL])
    for method in methods:
        table.add_column(METHOD_TITLES[method], justify="right", style=None if is_model(method) else "dim")
    for group, rows in groups.items():
        if group == ALL:
            table.add_section()
        cells = []
        for method in methods:
            scores = rows.get(method)
            text = " / ".join(format_value(metric, scores[metric]) for metric in metrics) if scores else UNDEFINED
            cells.append(_bold(text, scores is not None and is_best(metrics[0], scores, rows)))
        images = max(int(scores["images"]) for scores in rows.values())
        table.add_row(group, str(images), *cells)
    return table


def _bold(text: str, bold: bool) -> str:
    return f"[bold]{text}[/bold]" if bold else text
