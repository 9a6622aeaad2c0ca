"""The flicker table and the images of a video, with the temporal filter off and on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from rich.table import Table

from diffusion_perception_ros.evaluation.reports.panels import Panel, Scale, depth_gradient, embed, error_gradient
from diffusion_perception_ros.evaluation.reports.report import (
    REPORT_NAME,
    Fact,
    FrameView,
    Page,
    TableView,
    write_page,
)
from diffusion_perception_ros.evaluation.tables import UNDEFINED
from diffusion_perception_ros.evaluation.temporal import METHODS, VideoEvaluation, VideoExample, depth_of, in_metres
from diffusion_perception_ros.inference.visualization import INVALID, colorize_depth, depth_limits
from diffusion_perception_ros.metrics.flicker import Correspondence, at_places, depth_change
from diffusion_perception_ros.sample import FloatImage, UInt8Image


VIDEO_FRAMES = 5
"""Frames in a row that a report shows."""
STRIP_WIDTH = 1600
GAP = 4
"""Pixels between the frames of a strip."""
CHANGE_LIMIT = 0.05
"""Relative change from frame to frame shown as the brightest colour."""
METHOD_TITLES = {"off": "filter off", "on": "filter on"}
SCORE_TITLES = {
    "flicker_depth": "flicker, depth",
    "flicker_classes": "flicker, classes",
    "absrel": "AbsRel",
    "edge_absrel": "AbsRel at depth edges",
    "moving_absrel": "AbsRel on what moves",
    "around_absrel": "AbsRel around it",
}
NOTE = (
    "Flicker: mean relative change of depth, and share of pixels that change their class, from one frame to the next "
    "along the camera's motion, beyond the true change. AbsRel with one scale and shift for the whole clip."
)


def video_table(result: VideoEvaluation) -> Table:
    """For the terminal: methods by scores."""
    table = Table(title=_title(result), title_justify="left", title_style="bold", caption="\n".join(result.notes))
    table.caption_justify = "left"
    table.add_column("")
    for score in _columns(result):
        table.add_column(f"{SCORE_TITLES[score]} ↓", justify="right")
    for method in METHODS:
        cells = [_cell(result, method, score) for score in _columns(result)]
        table.add_row(METHOD_TITLES[method], *(f"[bold]{text}[/bold]" if best else text for text, best in cells))
    return table


def video_table_view(result: VideoEvaluation) -> TableView:
    """For a page: the same."""
    columns = _columns(result)
    rows = [
        (METHOD_TITLES[method], [_cell(result, method, score) for score in columns], method == "on", False)
        for method in METHODS
    ]
    header = [f"{SCORE_TITLES[score]} ↓" for score in columns]
    return TableView(
        _title(result), " ".join([NOTE, *(f"{note[:1].upper()}{note[1:]}." for note in result.notes)]), header, rows
    )


def video_frame_view(result: VideoEvaluation) -> FrameView | None:
    """Frames in a row, one strip per map and method; None if none were kept or there is no depth."""
    depths = {method: [_metres(shown, method, result.gauge[method]) for shown in result.shown] for method in METHODS}
    if not result.shown or any(depth is None for row in depths.values() for depth in row):
        return None
    rows = {method: [depth for depth in row if depth is not None] for method, row in depths.items()}
    low, high = depth_limits(np.concatenate([_true_depth(shown) for shown in result.shown]))
    scale = Scale(depth_gradient(), f"{low:.1f} m", f"{high:.1f} m")
    tiles = [Panel("Camera", source=_strip([shown.sample.rgb for shown in result.shown]))]
    for method, row in rows.items():
        images = [colorize_depth(depth, low, high) for depth in row]
        caption = "one scale and shift for the clip"
        tiles.append(Panel(f"Depth, {METHOD_TITLES[method]}", caption, _strip(images), scale))
    for method, row in rows.items():
        changes = [
            _change(before, now, shown.link)
            for before, now, shown in zip(row[:-1], row[1:], result.shown[1:], strict=True)
        ]
        images = [colorize_depth(change, 0.0, CHANGE_LIMIT, near_is_high=True) for change in changes]
        tiles.append(
            Panel(
                f"Flicker, {METHOD_TITLES[method]}",
                "relative change since the frame before, beyond the true one; grey: not known",
                _strip(images),
                Scale(error_gradient(), "0", f"≥ {CHANGE_LIMIT:.0%}"),
            )
        )
    note = f"{len(result.shown)} frames, {result.interval:.3f} s apart"
    return FrameView("Frame to frame, without and with the temporal filter", note, tiles, is_strip=True)


def write_video_report(folder: Path, result: VideoEvaluation, environment: Mapping[str, str]) -> Path:
    """Writes `report.html` of a clip.

    Raises:
        InputError: the folder cannot be written.
    """
    view = video_frame_view(result)
    page = Page(
        title=f"{result.model}: flicker on {Path(result.data).name}",
        subtitle=f"{result.frames} frames of {result.data}, temporal filter of {result.time_constant:g} s",
        facts=video_facts(result),
        frames=[view] if view else [],
        tables=[video_table_view(result)],
        sections={"Measured on": dict(environment)},
    )
    return write_page(folder / REPORT_NAME, page)


def video_facts(result: VideoEvaluation) -> list[Fact]:
    """How much less it flickers."""
    facts = []
    for score, what in (("flicker_depth", "flicker of depth"), ("flicker_classes", "flicker of classes")):
        off, on = (result.scores[method].get(score, math.nan) for method in METHODS)
        if math.isfinite(off) and on > 0:
            facts.append(Fact(f"÷ {off / on:.1f}", what, f"{off:.1%} per frame without, {on:.1%} with the filter"))
    return facts


def _title(result: VideoEvaluation) -> str:
    return f"Steady video, {result.model} on {Path(result.data).name}, {result.frames} frames"


def _columns(result: VideoEvaluation) -> list[str]:
    return [score for score in SCORE_TITLES if any(score in scores for scores in result.scores.values())]


def _cell(result: VideoEvaluation, method: str, score: str) -> tuple[str, bool]:
    """Text, and whether it is the best of its column."""
    value = result.scores[method].get(score, math.nan)
    if not math.isfinite(value):
        return UNDEFINED, False
    text = _text(score, value)
    known = [scores[score] for scores in result.scores.values() if math.isfinite(scores.get(score, math.nan))]
    return text, text == _text(score, min(known))


def _text(score: str, value: float) -> str:
    return f"{value:.2%}" if score.startswith("flicker") else f"{value:.3f}"


def _metres(shown: VideoExample, method: str, gauge: tuple[float, float]) -> FloatImage | None:
    prediction = shown.predictions[method]
    depth = depth_of(prediction)
    return None if depth is None else in_metres(depth, prediction.depth_quantity, gauge).astype(np.float32)


def _true_depth(shown: VideoExample) -> FloatImage:
    assert shown.sample.depth is not None  # or it would not have been scored
    return shown.sample.depth


def _change(before: FloatImage, now: FloatImage, link: Correspondence | None) -> FloatImage:
    """(H, W) relative change since the frame before, NaN where it is not known."""
    change = np.full(now.shape, np.nan, np.float32)
    if link is not None:
        values = depth_change(at_places(before, link.places), now[link.rows, link.columns], link.change)
        change[link.rows, link.columns] = np.abs(values)
    return change


def _strip(images: Sequence[UInt8Image]) -> str:
    """Images side by side, as a data URI."""
    width = STRIP_WIDTH // VIDEO_FRAMES
    size = width, round(images[0].shape[0] * width / images[0].shape[1])
    small = [np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8) for image in images]
    height = small[0].shape[0]
    gap = np.full((height, GAP, 3), INVALID, np.uint8)
    row = [part for image in small for part in (gap, image)][1:]
    missing = VIDEO_FRAMES - len(small)
    if missing:  # changes start with the second frame
        row = [np.full((height, missing * (width + GAP), 3), INVALID, np.uint8), *row]
    return embed(np.concatenate(row, axis=1), STRIP_WIDTH)
