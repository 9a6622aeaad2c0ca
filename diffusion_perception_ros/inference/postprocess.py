"""The graph's output tensors → maps of the image's size, in the units and the axes of `Prediction`.

What is not linear (softmax, thresholds, holes) is done at the graph's resolution and then resized: there are 4 to 16
times fewer pixels there. Maps are kept as separate planes until the end, which is what OpenCV resizes fastest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.inference.card import Axis, DepthOutput, Label
from diffusion_perception_ros.inference.tensor import FloatTensor
from diffusion_perception_ros.sample import FloatImage, UInt8Image, UInt16Image


Size = tuple[int, int]
"""(width, height), OpenCV's order."""

Enlarge = Callable[[FloatImage], FloatImage]
"""(h, w) → (H, W)."""

_BAND = 32
"""Rows that are worked on at a time."""

OPTICAL_AXES: dict[Axis, tuple[int, float]] = {
    "right": (0, 1.0),
    "left": (0, -1.0),
    "down": (1, 1.0),
    "up": (1, -1.0),
    "forward": (2, 1.0),
    "backward": (2, -1.0),
}
"""Direction in which a channel grows → optical axis (x right, y down, z forward) and sign."""


def depth_map(
    output: DepthOutput,
    values: FloatImage,
    focal: float | None,
    sky: npt.NDArray[np.bool_] | None,
    enlarge: Enlarge,
) -> tuple[FloatImage, str]:
    """Depth or disparity in the image's size, and the quantity that it is.

    Args:
        output: What the card says about the tensor.
        values: (h, w), the raw tensor.
        focal: Mean focal length in pixels of the *graph input*, None if unknown. A metric model with `focal_scale`
            needs it; without, its depth is only relative.
        sky: (h, w), where there is sky; metric depth is +Inf there.
        enlarge: Brings the values to the image's size; what is not finite keeps its own cells.

    Returns:
        Either metres and `metric_depth`: NaN where the model gives no positive depth, +Inf for sky and from the
        upper end of the card's range on. Or values in [0, 1] (NaN where invalid) and the relative quantity.
    """
    low, high = output.range
    if output.quantity != "metric_depth" or (output.focal_scale is not None and focal is None):
        relative = np.clip((values - np.float32(low)) / np.float32(high - low), 0.0, 1.0)
        return enlarge(relative), output.quantity.replace("metric", "relative")
    metres = values if output.focal_scale is None else values * np.float32(output.focal_scale * (focal or 0.0))
    beyond = values >= high if sky is None else (values >= high) | sky
    metres = np.where(beyond, np.float32(np.inf), np.where(values > 0, metres, np.float32(np.nan)))
    return enlarge(metres), "metric_depth"


def confidence_map(values: FloatImage, enlarge: Enlarge) -> FloatImage:
    """(h, w) → image's size, in [0, 1]; what is not a number is not sure at all (0)."""
    return enlarge(np.clip(np.nan_to_num(values), 0.0, 1.0))


def normal_map(axes: tuple[Axis, Axis, Axis], tensor: FloatTensor, size: Size) -> FloatImage:
    """(3, h, w) in the card's axes → (H, W, 3) unit vectors in the optical frame, NaN where a vector has no direction.

    The sign is the model's: a normal that faces away from the camera (n_z > 0) is left as predicted, since turning it
    would make a grazing surface jump.
    """
    planes: list[FloatImage] = [np.empty(0, np.float32)] * 3
    with np.errstate(divide="ignore", invalid="ignore"):  # unit length first: neighbours then count the same
        scale = np.float32(1.0) / np.sqrt(np.einsum("chw,chw->hw", tensor, tensor))
    for channel, axis in enumerate(axes):
        target, sign = OPTICAL_AXES[axis]
        planes[target] = cv2.multiply(tensor[channel], scale, scale=sign)
    normals = _resize(cast(FloatImage, cv2.merge(planes)), size)
    for start in range(0, len(normals), _BAND):  # in bands: temporaries stay in the cache
        band = normals[start : start + _BAND]
        squares = cv2.transform(cv2.multiply(band, band), np.ones((1, 3), np.float32))
        cv2.multiply(band, cv2.merge([cv2.pow(squares, -0.5)] * 3), dst=band)
    return normals


def unit_range_map(limits: tuple[float, float], tensor: FloatTensor, size: Size) -> FloatImage:
    """(C, h, w) in the card's range → (H, W), or (H, W, C) for more channels, in [0, 1]; NaN becomes 0."""
    low, high = limits
    values = np.clip((np.nan_to_num(tensor, nan=low) - np.float32(low)) / np.float32(high - low), 0.0, 1.0)
    return _resize(cast(FloatImage, cv2.merge(list(values))), size)


def flow_map(scale: float, tensor: FloatTensor, size: Size, input_size: Size) -> FloatImage:
    """(2, h, w) → (H, W, 2) in pixels of the image.

    Args:
        scale: Pixels of the graph's input per unit.
        tensor: (right, down).
        size: Width and height of the image.
        input_size: Width and height of the graph's input.
    """
    planes = [plane * np.float32(scale * size[axis] / input_size[axis]) for axis, plane in enumerate(tensor)]
    return _resize(cast(FloatImage, cv2.merge(planes)), size)


@dataclass(frozen=True)
class ClassScores:
    """Softmax of a semantic head at its own resolution, for the classes that win at least one pixel."""

    channels: tuple[int, ...]
    """Channels of the tensor that win somewhere, ascending."""
    probabilities: FloatTensor
    """(len(channels), h, w) in [0, 1]."""
    winner: npt.NDArray[np.int32]
    """(h, w), channel with the highest score, -1 where the scores are not numbers."""


def class_scores(logits: FloatTensor) -> ClassScores:
    """(C, h, w) → the classes that occur in the image with their probabilities."""
    highest = logits.max(axis=0)
    wins = logits == highest
    channels = tuple(int(channel) for channel in np.flatnonzero(wins.any(axis=(1, 2))))
    winner = np.full(highest.shape, -1, np.int32)
    for channel in reversed(channels):  # the first of equals wins, as in argmax
        winner[wins[channel]] = channel
    with np.errstate(invalid="ignore"):
        exponentials = np.exp(logits - highest)
    probabilities = exponentials[list(channels)] / exponentials.sum(axis=0)
    return ClassScores(channels, np.nan_to_num(probabilities, copy=False), winner)


def semantic_map(
    scores: ClassScores, labels: tuple[Label, ...], size: Size
) -> tuple[UInt8Image | UInt16Image, FloatImage]:
    """Label ids and their probabilities in the image's size.

    The probabilities are enlarged and compared, rather than the ids, so that outlines are smooth. Only classes that
    win somewhere at the graph's resolution are looked at.

    Returns:
        ids: (H, W) uint8, or uint16 if the labels' ids go beyond 254; the type's highest value where there is none.
        confidence: (H, W) float32 in [0, 1].
    """
    width, height = size
    dtype = np.uint8 if max(label.id for label in labels) < 255 else np.uint16
    ids = np.full((height, width), np.iinfo(dtype).max, dtype)
    best = np.zeros((height, width), np.float32)
    enlarged, constant, wins = np.empty_like(best), np.empty_like(ids), np.empty(best.shape, np.uint8)
    for channel, probability in zip(scores.channels, scores.probabilities, strict=True):
        cv2.resize(probability, size, dst=enlarged, interpolation=cv2.INTER_LINEAR)
        constant.fill(labels[channel].id)
        cv2.copyTo(constant, cv2.compare(enlarged, best, cv2.CMP_GT, dst=wins), ids)
        cv2.max(enlarged, best, dst=best)
    return ids, best


def _resize(values: FloatImage, size: Size, interpolation: int = cv2.INTER_LINEAR) -> FloatImage:
    return cast(FloatImage, cv2.resize(values, size, interpolation=interpolation))


def resize_with_holes(values: FloatImage, size: Size) -> FloatImage:
    """Linear resize of (h, w) in which NaN and Inf do not spread: they keep their own cells, others ignore them."""
    finite = np.isfinite(values)
    if finite.all():
        return _resize(values, size)
    weights = _resize(finite.astype(np.float32), size)
    sums = _resize(np.where(finite, values, np.float32(0.0)), size)
    own = _resize(values, size, cv2.INTER_NEAREST_EXACT)
    return np.where(np.isfinite(own), sums / np.maximum(weights, np.float32(1e-6)), own)
