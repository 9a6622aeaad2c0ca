"""Tables and images of depth that is completed from sparse points, for the demo and for `evaluate --compare`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from diffusion_perception_ros.evaluation.completion_comparison import (
    ALL,
    METHODS,
    CompletionComparison,
    CompletionExample,
    SparseSetting,
)
from diffusion_perception_ros.evaluation.reports.panels import (
    Panel,
    Scale,
    depth_gradient,
    embed,
    error_tile,
    thickened,
)
from diffusion_perception_ros.evaluation.reports.report import (
    REPORT_NAME,
    Fact,
    FrameView,
    Page,
    TableView,
    card_rows,
    percent,
    write_page,
)
from diffusion_perception_ros.evaluation.tables import image_count
from diffusion_perception_ros.inference.card import ModelCard
from diffusion_perception_ros.inference.visualization import colorize_depth, depth_limits
from diffusion_perception_ros.metrics.dense import Scores
from diffusion_perception_ros.sample import FloatImage


NOTE = (
    "AbsRel ↓ / δ1 ↑ in metres of the pixels that are not given, mean over {images}. The interpolations "
    "see the same points, and joint bilateral also the image. rows32: the 32 scan lines of a lidar."
)
STEP_NOTE = " Scored on every {step}th row and column."
ERROR_LIMIT = 0.1
"""Relative error shown as the brightest colour."""
POINTS_ACROSS = 160
"""Radii of a drawn point that make up the width of an image."""
SHOWN_ERRORS = ("model", "joint_bilateral", "nearest", "model_global")


def completion_view(result: CompletionComparison, step: int = 1) -> TableView:
    """One row per share and pattern, one column per method.

    Args:
        step: Only every `step`-th row and column was scored.
    """
    first = next(iter(result.scores.values()))
    rows = [(_name(setting), _cells(result.means(setting)), False, False) for setting in result.scores]
    header = [METHODS[method] for method in first[0][1]]
    note = NOTE.format(images=image_count(len(first))) + (STEP_NOTE.format(step=step) if step > 1 else "")
    return TableView("Depth completed from sparse points", note, header, rows)


def completion_facts(result: CompletionComparison) -> list[Fact]:
    """The model against the best interpolation of the same points, for the share in the middle."""
    setting = result.headline
    means = {method: scores["absrel"] for method, scores in result.means(setting).items()}
    ours = means["model"]
    other = min((method for method in means if not method.startswith("model")), key=lambda method: means[method])
    note = f"{_name(setting)}; {METHODS[other]} of the same points: {means[other]:.3f}"
    return [Fact(f"{ours:.3f}", "Depth completed from sparse points, AbsRel ↓", note)]


def write_comparison_report(
    folder: Path, result: CompletionComparison, data: str, card: ModelCard, environment: Mapping[str, str]
) -> Path:
    """Writes `report.html` of a comparison.

    Raises:
        InputError: the folder cannot be written.
    """
    views = [_frame_view(shown) for shown in result.shown]
    tables = [completion_view(result)]
    groups = dict.fromkeys(group for group, _ in result.scores[result.headline])
    if len(groups) > 1:
        tables.append(_groups_view(result, list(groups)))
    page = Page(
        title=f"{card.name}: depth completed from sparse points of {Path(data).name}",
        subtitle=f"{image_count(len(result.scores[result.headline]))} of {data}",
        facts=completion_facts(result),
        frames=views,
        tables=tables,
        sections={"Model": card_rows(card), "Measured on": dict(environment)},
        problems=result.skipped + result.failed,
    )
    return write_page(folder / REPORT_NAME, page)


def _groups_view(result: CompletionComparison, groups: list[str]) -> TableView:
    setting = result.headline
    methods = result.means(setting)
    rows = [(group, _cells(result.means(setting, group)), False, False) for group in groups]
    rows.append((ALL, _cells(methods), False, True))
    return TableView(f"Per group, {_name(setting)}", "", [METHODS[method] for method in methods], rows)


def _cells(means: Mapping[str, Scores]) -> list[tuple[str, bool]]:
    best = min(f"{scores['absrel']:.4f}" for scores in means.values())
    return [
        (f"{scores['absrel']:.4f} / {scores['delta1']:.3f}", f"{scores['absrel']:.4f}" == best)
        for scores in means.values()
    ]


def _name(setting: SparseSetting) -> str:
    return f"{percent(setting.share)} of the pixels given, {setting.pattern}"


def _frame_view(shown: CompletionExample) -> FrameView:
    """Input, what was given, what came out of it, the truth, and the errors of the methods."""
    truth = shown.sample.depth
    assert truth is not None  # or it would not have been compared
    low, high = depth_limits(truth)
    scale = Scale(depth_gradient(), f"{low:.1f} m", f"{high:.1f} m")

    def depth_tile(title: str, caption: str, depth: FloatImage) -> Panel:
        return Panel(title, caption, embed(colorize_depth(depth, low, high)), scale)

    tiles = [
        Panel("Input", source=embed(shown.sample.rgb)),
        depth_tile("Given depth", "points enlarged", thickened(shown.given, truth.shape[1] / POINTS_ACROSS)),
        depth_tile("Depth, completed", "by the model", shown.answers["model"]),
        depth_tile("Depth, ground truth", "grey: not known", thickened(truth)),
    ]
    for method in SHOWN_ERRORS:
        error = np.abs(shown.answers[method] - truth) / truth
        tiles.append(error_tile(f"Error, {METHODS[method]}", "relative", error, ERROR_LIMIT, "%"))
    height, width = truth.shape
    return FrameView(shown.sample.name, f"{width} × {height}, {_name(shown.setting)}", tiles, width / height)
