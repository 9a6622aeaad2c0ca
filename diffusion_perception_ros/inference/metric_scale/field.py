"""Scale and shift that vary over the image: sparse depth completed along the edges of image and prediction.

Near a measured point the depth follows the point; between points it follows the model as far as the model has proven
right about its neighbourhood.

1. Each point gets a line of its own from the model's values to what is measured, z = a v + b, that passes through the
   point. Its slope is the regression over the points around it that look like it, shrunk towards 0 where the
   prediction hardly varies (the local linear model of the guided filter, He et al., TPAMI 2013, section 3.1, fitted
   to scattered points): a model that knows the slope of a floor keeps it, one that invents structure is flattened.
2. Each place of a grid over the image takes the weighted mean of the lines of the points around it. The weight falls
   exponentially with the distance in the image, in colour and in predicted depth (joint bilateral upsampling, Kopf
   et al., SIGGRAPH 2007, with city-block distances), so that a point speaks for its own surface.

Whom a place asks needs no search: the points nearest to the place and to a ring around it as wide as the points are
apart. Distances are bytes that saturate, which OpenCV works on fastest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.inference.metric_scale.sparse_points import FloatVector, SparsePoints
from diffusion_perception_ros.inference.point_map import Offset, PointMap, mean_spacing, ring
from diffusion_perception_ros.sample import FloatImage, UInt8Image


_LONG_SIDE = 320
"""Places along the longer side of the image; 2 pixels apart in an image of 640x480."""
_UNIT = 16
"""Steps of a byte per unit of distance: beyond 16 units, far is far."""
_SPACE = 0.45
"""A unit of distance in the image, in mean distances of the points."""
_LUMA, _CHROMA = 20.0, 6.0
"""A unit in 8-bit steps of Y, and of Cr and Cb."""
_VALUE = 0.2
"""A unit as a relative difference of predicted depth."""
_ASKED, _FITTED = 0.8, 1.3
"""Radius, in mean distances of the points, of the ring that a place asks and that a point's slope is fitted to."""
_WIDER = 0.15
"""Distances count this much for slopes, which a whole surface shares."""
_RIDGE = 0.03
"""Relative scatter of predicted depth at which a slope is shrunk to half."""
_STEEPEST = 1.0
"""Largest slope relative to that of the whole image."""
_AGREES = 0.3
"""Difference of logarithms (a third) up to which neighbouring points support each other."""
_ALIKE = 5.0
"""Distance within which a point should find support: a wrong return is one that nothing near and alike confirms."""
_BLOCK = 2048
"""Points whose lines are fitted at once: what they need stays in the cache."""

_NEVER = np.float32(1e6)
"""Beyond any distance: a point does not confirm itself."""
_WEIGHTS = np.exp(-np.arange(256) / _UNIT).astype(np.float32)

Image = TypeVar("Image", FloatImage, UInt8Image)


@dataclass(frozen=True)
class ScaleField:
    """Scale and shift in the model's quantity on a coarse grid over the image."""

    scale: FloatImage
    shift: FloatImage
    """(h, w), the image's edges at the grid's edges."""

    def apply(self, relative: FloatImage) -> FloatImage:
        """(H, W) relative values to the fitted quantity, in the same size."""
        size = relative.shape[1], relative.shape[0]
        fitted = cv2.multiply(relative, cv2.resize(self.scale, size))
        return np.asarray(cv2.add(fitted, cv2.resize(self.shift, size), fitted), np.float32)

    def faded(self, scale: float, shift: float, weight: float) -> ScaleField:
        """On the way to the fit of the whole image: `weight` 1 is this field, 0 is (scale, shift) everywhere."""
        keep, rest = np.float32(weight), 1.0 - weight
        return ScaleField(self.scale * keep + np.float32(rest * scale), self.shift * keep + np.float32(rest * shift))


def fit_field(
    relative: FloatImage,
    points: SparsePoints,
    targets: FloatVector,
    scale: float,
    shift: float,
    rgb: UInt8Image | None = None,
) -> ScaleField:
    """Fits the field.

    Args:
        relative: (H, W) predicted values; NaN invalid.
        points: Measured pixels of the same image.
        targets: (N,) what they measure in the model's quantity (metres, or 1/metres for disparity).
        scale, shift: The fit of the whole image, targets = scale * values + shift.
        rgb: (H, W, 3), the image; without it only the prediction tells surfaces apart.
    """
    shape = _grid_shape(relative.shape)
    predicted = _without_nan(_shrunk(relative, shape)) * np.float32(scale) + np.float32(shift)
    guide = _guide(predicted, targets, rgb)
    rows, columns = points.rows * shape[0] // relative.shape[0], points.columns * shape[1] // relative.shape[1]
    spacing = mean_spacing(rows, columns, shape)
    fitted, asked = ring(_FITTED * spacing), ring(_ASKED * spacing)
    nearest = PointMap.of(rows, columns, shape, spacing, max(max(offset) for offset in fitted))

    looks = np.stack([plane[rows, columns] for plane in guide], axis=-1)
    unit = np.float32(_UNIT / (_SPACE * spacing))
    position = np.stack([points.rows + 0.5, points.columns + 0.5], axis=-1) * np.divide(shape, relative.shape) - 0.5
    position = position.astype(np.float32) * unit
    neighbours = np.stack([nearest.at(rows + down, columns + right) for down, right in fitted])
    predicted = points.values * np.float32(scale) + np.float32(shift)
    slope, replacement = _lines(neighbours, np.concatenate([position, looks], axis=-1), targets, predicted)
    nearest = replace(nearest, indices=np.take(replacement, nearest.indices))
    slope *= np.float32(scale)
    lines = nearest.spread(np.stack([slope, targets - slope * points.values], axis=-1))
    away = _displacements(nearest, position, unit)
    return _mean_lines(guide, nearest.spread(looks), away, lines, unit, nearest, asked)


def _grid_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Places along both sides."""
    longest = max(shape)
    return max(1, round(shape[0] * _LONG_SIDE / longest)), max(1, round(shape[1] * _LONG_SIDE / longest))


def _shrunk(image: Image, shape: tuple[int, int]) -> Image:
    """Averaged down. Halving repeatedly is the mean over areas in a fraction of INTER_AREA's time."""
    height, width = shape
    while image.shape[0] >= 2 * height and image.shape[1] >= 2 * width:
        half = (image.shape[1] + 1) // 2, (image.shape[0] + 1) // 2
        image = np.asarray(cv2.resize(image, half), image.dtype)
    return image if image.shape[:2] == shape else np.asarray(cv2.resize(image, (width, height)), image.dtype)


def _without_nan(coarse: FloatImage) -> FloatImage:
    """Invalid predictions (and what they have spread to) replaced by the median, which tells no surfaces apart."""
    invalid = np.isnan(coarse)
    return np.where(invalid, np.nanmedian(coarse), coarse) if invalid.any() else coarse


def _guide(predicted: FloatImage, targets: FloatVector, rgb: UInt8Image | None) -> list[UInt8Image]:
    """What surfaces are told apart by, (h, w) each, `_UNIT` steps per unit: log of the prediction (, Y, Cr, Cb)."""
    logarithm = cv2.log(np.maximum(predicted, np.float32(0.25 * float(targets.min()))))
    steps = _UNIT / _VALUE
    planes = [_bytes(logarithm, steps, 128 - steps * float(np.log(targets.mean())))]
    if rgb is not None:
        # the mean over 3x3 places: noise tells no surfaces apart
        small = cv2.blur(_shrunk(rgb, (predicted.shape[0], predicted.shape[1])), (3, 3))
        luma, red, blue = cv2.split(cv2.cvtColor(small, cv2.COLOR_RGB2YCrCb))
        steps = _UNIT / _CHROMA
        planes.append(_bytes(luma, _UNIT / _LUMA, 0.0))
        planes += [_bytes(chroma, steps, 128 * (1 - steps)) for chroma in (red, blue)]
    return planes


def _bytes(image: cv2.typing.MatLike, factor: float, offset: float) -> UInt8Image:
    """factor * image + offset, rounded and saturated."""
    return np.asarray(cv2.addWeighted(image, factor, image, 0.0, offset, dtype=cv2.CV_8U), np.uint8)


def _lines(
    neighbours: npt.NDArray[np.intp],
    features: npt.NDArray[np.float32],
    targets: FloatVector,
    predicted: FloatVector,
) -> tuple[FloatVector, npt.NDArray[np.intp]]:
    """The slope of every point's line, and for every point itself, or the neighbour that stands in for a wrong one.

    Args:
        neighbours: (K, N) points around each, itself among them.
        features: (N, F), whose absolute differences add up to a distance.
        targets, predicted: (N,) measured and predicted values.
    """
    slope, replacement = np.empty_like(targets), np.arange(len(targets))
    wrong = np.zeros(len(targets), np.bool_)
    blocks = [np.s_[start : start + _BLOCK] for start in range(0, len(targets), _BLOCK)]
    distances = [_distances(neighbours[:, block], features, block) for block in blocks]
    logarithm = np.log(targets)
    for block, distance in zip(blocks, distances, strict=True):
        near = neighbours[:, block]
        itself = (near == replacement[block]) * _NEVER
        gap = np.abs(np.take(logarithm, near) - logarithm[block])
        gap += itself
        wrong[block] = (gap.min(axis=0) > _AGREES) & ((distance + itself).min(axis=0) < _ALIKE * _UNIT)
    trust = np.where(wrong, np.float32(1e-6), np.float32(1))
    for block, distance in zip(blocks, distances, strict=True):
        near = neighbours[:, block]
        slope[block] = _slopes(distance, np.take(targets, near), np.take(predicted, near), np.take(trust, near))
    if wrong.any():
        right = ~wrong[neighbours[:, wrong]]
        replacement[wrong] = np.take_along_axis(neighbours[:, wrong], right.argmax(axis=0)[None], axis=0)[0]
    return slope, replacement


def _distances(near: npt.NDArray[np.intp], features: npt.NDArray[np.float32], block: slice) -> FloatImage:
    """(K, n) from the points of a block to their neighbours."""
    difference = np.take(features, near, axis=0)
    difference -= features[block]
    return np.asarray(np.abs(difference, out=difference) @ np.ones(features.shape[1], np.float32), np.float32)


def _slopes(distance: FloatImage, target: FloatImage, predicted: FloatImage, trust: FloatImage) -> FloatVector:
    """(n,) regression of target on prediction over (K, n) neighbours, relative errors weighted alike."""
    weight = np.exp(distance * np.float32(-_WIDER / _UNIT)) * trust / (target * target)
    weight /= weight.sum(axis=0)
    mean = (weight * target).sum(axis=0)
    predicted = predicted - (weight * predicted).sum(axis=0)
    weight *= predicted
    covariance, variance = (weight * (target - mean)).sum(axis=0), (weight * predicted).sum(axis=0)
    slope = covariance / (variance + (_RIDGE * mean) ** 2)
    return np.asarray(np.clip(slope, 0, _STEEPEST), np.float32)


def _displacements(nearest: PointMap, position: npt.NDArray[np.float32], unit: np.float32) -> list[UInt8Image]:
    """How far each place of the planes is from its nearest point, in rows and in columns; 128 is 0."""
    planes = []
    for axis, there in enumerate(nearest.spread(position)):
        here = (np.arange(there.shape[axis], dtype=np.float32) - nearest.margin) * unit + 128
        grid = np.ascontiguousarray(np.broadcast_to(np.expand_dims(here, 1 - axis), there.shape))
        planes.append(np.asarray(cv2.subtract(grid, there, dtype=cv2.CV_8U), np.uint8))
    return planes


def _mean_lines(
    guide: list[UInt8Image],
    looks: list[UInt8Image],
    displacements: list[UInt8Image],
    lines: list[FloatImage],
    unit: np.float32,
    nearest: PointMap,
    asked: list[Offset],
) -> ScaleField:
    """The weighted mean of the lines that each place finds at some offsets.

    Args:
        guide: (h, w) of the places.
        looks, displacements, lines: Planes of the nearest points: their guide, how far they are along both axes, and
            slope and shift.
        unit: Steps of displacement per place.
        nearest: Where on the planes the places are.
        asked: The offsets.
    """
    height, width = guide[0].shape
    weight, slope, shift, part = np.zeros((4, height, width), np.float32)
    distance, difference, step = np.empty((3, height, width), np.uint8)
    for offset in asked:
        window = nearest.seen_from(offset, (height, width))
        distance.fill(0)
        for plane, places in zip(displacements, offset, strict=True):
            step.fill(min(max(round(128 + places * float(unit)), 0), 255))
            cv2.add(distance, cv2.absdiff(plane[window], step, difference), distance)
        for here, plane in zip(guide, looks, strict=True):
            cv2.add(distance, cv2.absdiff(here, plane[window], difference), distance)
        cv2.LUT(distance, _WEIGHTS, part)
        cv2.accumulate(part, weight)
        for line, total in zip(lines, (slope, shift), strict=True):
            cv2.accumulateProduct(part, line[window], total)
    return ScaleField(slope / weight, shift / weight)
