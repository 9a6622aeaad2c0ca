"""The images of one frame in a report: input, depth, normals, segmentation, point cloud and errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.datasets import EvaluationSample
from diffusion_perception_ros.evaluation.label_maps import read_label_map
from diffusion_perception_ros.evaluation.prompting import NO_QUESTION, Question
from diffusion_perception_ros.evaluation.reports.object_figures import (
    alpha_tiles,
    appearance_tiles,
    flow_tiles,
    keypoint_tiles,
    mask_tiles,
)
from diffusion_perception_ros.evaluation.reports.panels import (
    Panel,
    Scale,
    css_color,
    depth_gradient,
    embed,
    error_tile,
    outlines,
    thickened,
)
from diffusion_perception_ros.evaluation.reports.point_view import render_point_view
from diffusion_perception_ros.evaluation.scoring import aligned_depth, ground_truth_normals
from diffusion_perception_ros.inference.card import Label, ModelCard
from diffusion_perception_ros.inference.visualization import (
    INVALID,
    colorize_depth,
    colorize_instances,
    colorize_labels,
    colorize_normals,
    depth_limits,
    overlay,
    present_labels,
)
from diffusion_perception_ros.metrics.dense import angles_between
from diffusion_perception_ros.sample import UNKNOWN_INSTANCE, Prediction, UInt8Image, UInt16Image


DEPTH_ERROR_LIMIT = 0.5
"""Relative error shown as the brightest colour."""
NORMAL_ERROR_LIMIT = 60.0
"""Degrees shown as the brightest colour."""
WRONG = (230, 60, 40)
"""Colour of pixels with the wrong class."""
METRES = "in metres"
ALIGNED = "relative; metres by one scale and shift fitted to the true depth"


def frame_tiles(
    sample: EvaluationSample,
    prediction: Prediction,
    card: ModelCard,
    question: Question = NO_QUESTION,
    metres: str = METRES,
) -> list[Panel]:
    """All images that the prediction and the ground truth of a frame allow, the input first.

    Args:
        question: What the model was prompted with.
        metres: Caption of metric depth: how it got its metres.
    """
    tiles = [Panel("Input", source=embed(sample.rgb))]
    tiles += _depth_tiles(sample, prediction, metres)
    tiles += _normals_tiles(sample, prediction)
    tiles += _segmentation_tiles(sample, prediction, card.labels)
    tiles += _instance_tiles(sample, prediction)
    tiles += flow_tiles(sample, prediction)
    tiles += mask_tiles(sample, prediction, question)
    tiles += alpha_tiles(sample, prediction)
    tiles += keypoint_tiles(sample, prediction)
    tiles += appearance_tiles(prediction, card)
    return tiles


def _depth_tiles(sample: EvaluationSample, prediction: Prediction, metric_caption: str) -> Iterator[Panel]:
    relative = prediction.depth_relative
    if prediction.depth is None and relative is None:
        return
    metres, caption = prediction.depth, metric_caption
    if metres is None and sample.depth is not None:
        metres, caption = aligned_depth(sample.depth, prediction), ALIGNED
    if metres is None:
        assert relative is not None
        inverse = prediction.depth_quantity == "relative_disparity"
        low, high = depth_limits(relative)
        image = colorize_depth(relative, low, high, near_is_high=inverse)
        yield Panel("Depth", "relative: near and far, no unit", embed(image), Scale(depth_gradient(), "near", "far"))
        yield Panel("Point cloud", "Not shown: the depth is relative, and points need metres.")
        return
    low, high = depth_limits(sample.depth if sample.depth is not None else metres)
    scale = Scale(depth_gradient(), f"{low:.1f} m", f"{high:.1f} m")
    yield Panel("Depth", caption, embed(colorize_depth(metres, low, high)), scale)
    if sample.depth is not None:
        truth = thickened(sample.depth)
        yield Panel("Depth, ground truth", "grey: not known", embed(colorize_depth(truth, low, high)), scale)
        error = np.abs(metres - sample.depth) / sample.depth
        yield error_tile("Depth error", "relative, |predicted − true| / true", error, DEPTH_ERROR_LIMIT, "%")
    if sample.intrinsics is None:
        yield Panel("Point cloud", "Not shown: the camera is not calibrated.")
        return
    view = render_point_view(sample.rgb, metres, sample.intrinsics)
    yield Panel("Point cloud", "the depth in metres, seen from the right and above", embed(view))


def _normals_tiles(sample: EvaluationSample, prediction: Prediction) -> Iterator[Panel]:
    if prediction.normals is None:
        return
    yield Panel("Surface normals", "red: right, green: down, blue: away", embed(colorize_normals(prediction.normals)))
    truth = ground_truth_normals(sample)
    if truth is None:
        return
    error = angles_between(prediction.normals, truth).astype(np.float32)
    measured = sample.normals is None or sample.depth_kind != "exact"
    source = "against planes fitted to the sensor's near depth" if measured else "against ground truth"
    yield error_tile("Normal error", source, error, NORMAL_ERROR_LIMIT, "°")


def _segmentation_tiles(sample: EvaluationSample, prediction: Prediction, labels: Sequence[Label]) -> Iterator[Panel]:
    if prediction.semantic is None:
        return
    image, caption = overlay(sample.rgb, colorize_labels(prediction.semantic, labels), 0.6), ""
    if prediction.instances is not None:
        image[outlines(prediction.instances)] = 255
        caption = f"{_count(prediction.instances)} outlined"
    present = present_labels(prediction.semantic, labels)
    legend = [(label.name, css_color(label.color)) for label in present]
    yield Panel("Segmentation", caption, embed(image), legend=legend)
    if sample.semantic is not None and sample.label_set is not None:
        yield _segmentation_error(sample, prediction.semantic, labels)


def _segmentation_error(sample: EvaluationSample, semantic: npt.NDArray[np.integer], labels: Sequence[Label]) -> Panel:
    """The image in grey where the compared class is right, in colour where it is wrong, dark where none is known."""
    assert sample.label_set is not None
    assert sample.semantic is not None
    mapping = read_label_map(sample.label_set)
    truth = mapping.truth_ids(sample.semantic, sample.classes)
    known = truth != mapping.unknown
    wrong = known & (mapping.model_ids(semantic, labels) != truth)
    grey = np.repeat(sample.rgb.mean(axis=2, keepdims=True), 3, axis=2)
    image = np.where(wrong[..., None], 0.4 * grey + 0.6 * np.array(WRONG), grey)
    image[~known] *= 0.3
    share = 1 - np.count_nonzero(wrong) / max(np.count_nonzero(known), 1)
    caption = f"{share:.0%} of the compared pixels are right"
    legend = [("wrong", css_color(WRONG)), ("not compared", "#303030")]
    return Panel("Segmentation error", caption, embed(image.astype(np.uint8)), legend=legend)


def _instance_tiles(sample: EvaluationSample, prediction: Prediction) -> Iterator[Panel]:
    """Of models without classes the objects; the true ones where they are known."""
    if prediction.instances is None:
        return
    if prediction.semantic is None:
        image = _colored_objects(sample.rgb, prediction.instances)
        yield Panel("Objects", f"{_count(prediction.instances)} in arbitrary colours", embed(image))
    if sample.instances is not None:
        caption = f"{_count(sample.instances)} in arbitrary colours"
        unknown = UNKNOWN_INSTANCE in sample.instances
        image = _colored_objects(sample.rgb, sample.instances)
        yield Panel("Objects, ground truth", caption + ("; grey: not known" if unknown else ""), embed(image))


def _colored_objects(rgb: UInt8Image, ids: UInt16Image) -> UInt8Image:
    known = np.where(ids == UNKNOWN_INSTANCE, 0, ids).astype(np.uint16)
    image = overlay(rgb, colorize_instances(known), 0.6)
    image[ids == UNKNOWN_INSTANCE] = INVALID
    image[outlines(known)] = 255
    return image


def _count(ids: UInt16Image) -> str:
    count = np.setdiff1d(ids, (0, UNKNOWN_INSTANCE)).size
    return f"{count} object{'s' if count != 1 else ''}"
