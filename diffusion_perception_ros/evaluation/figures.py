"""The pictures of one frame in a report: input, depth, normals, segmentation, point cloud and errors."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.datasets import EvaluationSample
from diffusion_perception_ros.evaluation.label_maps import read_label_map
from diffusion_perception_ros.evaluation.metrics import angles_between
from diffusion_perception_ros.evaluation.point_view import render_point_view
from diffusion_perception_ros.evaluation.scoring import aligned_depth, ground_truth_normals
from diffusion_perception_ros.inference.card import Label
from diffusion_perception_ros.inference.visualization import (
    colorize_depth,
    colorize_labels,
    colorize_normals,
    depth_limits,
    overlay,
    present_labels,
)
from diffusion_perception_ros.sample import FloatImage, Prediction, UInt8Image, UInt16Image


TILE_WIDTH = 640
"""Pixels to which pictures are reduced before they are embedded."""
JPEG_QUALITY = 88
DEPTH_ERROR_LIMIT = 0.5
"""Relative error shown as the brightest colour."""
NORMAL_ERROR_LIMIT = 60.0
"""Degrees shown as the brightest colour."""
WRONG = (230, 60, 40)
"""Colour of pixels with the wrong class."""
SPARSE_SHARE = 0.25
"""Ground truth with less pixels than this is drawn with larger dots."""


@dataclass(frozen=True)
class Scale:
    """A colour bar, from left to right."""

    gradient: str
    """CSS colours, separated by commas."""
    left: str
    right: str


@dataclass(frozen=True)
class Tile:
    """One picture, or the reason why it is missing."""

    title: str
    caption: str = ""
    source: str | None = None
    """Data URI."""
    scale: Scale | None = None
    legend: list[tuple[str, str]] = field(default_factory=list)
    """Class name and CSS colour."""


def frame_tiles(sample: EvaluationSample, prediction: Prediction, labels: Sequence[Label]) -> list[Tile]:
    """All pictures that the prediction and the ground truth of a frame allow, the input first."""
    tiles = [Tile("Input", source=embed(sample.rgb))]
    tiles += _depth_tiles(sample, prediction)
    tiles += _normals_tiles(sample, prediction)
    tiles += _segmentation_tiles(sample, prediction, labels)
    return tiles


def embed(picture: UInt8Image, most: int = TILE_WIDTH) -> str:
    """A picture (H, W, 3) RGB as a data URI, reduced to `most` pixels of width."""
    height, width = picture.shape[:2]
    if width > most:
        size = (most, round(height * most / width))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    done, data = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert done
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def _depth_tiles(sample: EvaluationSample, prediction: Prediction) -> Iterator[Tile]:
    relative = prediction.depth_relative
    if prediction.depth is None and relative is None:
        return
    metres, caption = prediction.depth, "in metres, as published"
    if metres is None and sample.depth is not None:
        metres, caption = aligned_depth(sample.depth, prediction), "relative, brought to metres by scale and shift"
    if metres is None:
        assert relative is not None
        inverse = prediction.depth_quantity == "relative_disparity"
        low, high = depth_limits(relative)
        picture = colorize_depth(relative, low, high, near_is_high=inverse)
        yield Tile("Depth", "relative: near and far, no unit", embed(picture), Scale(_depth_gradient(), "near", "far"))
        yield Tile("Point cloud", "Not shown: the depth is relative, and points need metres.")
        return
    low, high = depth_limits(sample.depth if sample.depth is not None else metres)
    scale = Scale(_depth_gradient(), f"{low:.1f} m", f"{high:.1f} m")
    yield Tile("Depth", caption, embed(colorize_depth(metres, low, high)), scale)
    if sample.depth is not None:
        truth = _thickened(sample.depth)
        yield Tile("Depth, ground truth", "grey: not known", embed(colorize_depth(truth, low, high)), scale)
        error = _thickened(np.abs(metres - sample.depth) / sample.depth)
        yield Tile(
            "Depth error",
            "relative, |predicted − true| / true",
            embed(colorize_depth(error, 0.0, DEPTH_ERROR_LIMIT, near_is_high=True)),
            Scale(error_gradient(), "0", f"≥ {DEPTH_ERROR_LIMIT:.0%}"),
        )
    if sample.intrinsics is None:
        yield Tile("Point cloud", "Not shown: the camera is not calibrated.")
        return
    view = render_point_view(sample.rgb, metres, sample.intrinsics)
    yield Tile("Point cloud", f"seen from the right and above; depth {caption}", embed(view))


def _normals_tiles(sample: EvaluationSample, prediction: Prediction) -> Iterator[Tile]:
    if prediction.normals is None:
        return
    yield Tile("Surface normals", "red: right, green: down, blue: away", embed(colorize_normals(prediction.normals)))
    truth = ground_truth_normals(sample)
    if truth is None:
        return
    error = angles_between(prediction.normals, truth).astype(np.float32)
    yield Tile(
        "Normal error",
        "against planes fitted to the sensor's near depth" if sample.normals is None else "against ground truth",
        embed(colorize_depth(error, 0.0, NORMAL_ERROR_LIMIT, near_is_high=True)),
        Scale(error_gradient(), "0°", f"≥ {NORMAL_ERROR_LIMIT:.0f}°"),
    )


def _segmentation_tiles(sample: EvaluationSample, prediction: Prediction, labels: Sequence[Label]) -> Iterator[Tile]:
    if prediction.semantic is None:
        return
    picture, caption = overlay(sample.rgb, colorize_labels(prediction.semantic, labels), 0.6), ""
    if prediction.instances is not None:
        picture[_outlines(prediction.instances)] = 255
        count = np.count_nonzero(np.unique(prediction.instances))
        caption = f"{count} object{'s' if count != 1 else ''} outlined"
    present = present_labels(prediction.semantic, labels)
    yield Tile("Segmentation", caption, embed(picture), legend=[(label.name, _css(label.color)) for label in present])
    if sample.semantic is not None and sample.label_set is not None:
        yield _segmentation_error(sample, prediction.semantic, labels)


def _segmentation_error(sample: EvaluationSample, semantic: npt.NDArray[np.integer], labels: Sequence[Label]) -> Tile:
    """The picture in grey where the compared class is right, in colour where it is wrong, dark where none is known."""
    assert sample.label_set is not None
    assert sample.semantic is not None
    mapping = read_label_map(sample.label_set)
    truth = mapping.truth_ids(sample.semantic, sample.classes)
    known = truth != mapping.unknown
    wrong = known & (mapping.model_ids(semantic, labels) != truth)
    grey = np.repeat(sample.rgb.mean(axis=2, keepdims=True), 3, axis=2)
    picture = np.where(wrong[..., None], 0.4 * grey + 0.6 * np.array(WRONG), grey)
    picture[~known] *= 0.3
    share = 1 - np.count_nonzero(wrong) / max(np.count_nonzero(known), 1)
    caption = f"{share:.0%} of the compared pixels are right"
    legend = [("wrong", _css(WRONG)), ("not compared", "#303030")]
    return Tile("Segmentation error", caption, embed(picture.astype(np.uint8)), legend=legend)


def _outlines(instances: UInt16Image) -> npt.NDArray[np.bool_]:
    """Pixels at the rim of an instance, two wide on each side."""
    kernel = np.ones((3, 3), np.uint8)
    return np.asarray(cv2.dilate(instances, kernel) != cv2.erode(instances, kernel), bool)


def _thickened(values: FloatImage) -> FloatImage:
    """Sparse measurements as dots that can be seen; dense ones as they are."""
    known = np.isfinite(values)
    if not known.any() or known.mean() >= SPARSE_SHARE:
        return values
    grown = cv2.dilate(np.where(known, values, -1.0).astype(np.float32), np.ones((5, 5), np.uint8))
    return np.where(grown >= 0, grown, np.nan).astype(np.float32)


def _depth_gradient() -> str:
    """The colours of depth from near to far."""
    return _gradient(colorize_depth(np.linspace(0, 1, 9, dtype=np.float32)[None], 0.0, 1.0))


def error_gradient() -> str:
    """The colours of errors, from none to large."""
    return _gradient(colorize_depth(np.linspace(0, 1, 9, dtype=np.float32)[None], 0.0, 1.0, near_is_high=True))


def _gradient(strip: UInt8Image) -> str:
    return ", ".join(_css(color) for color in strip[0])


def _css(color: Sequence[int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*(int(channel) for channel in color))
