"""Scale and shift that vary over the picture: sparse depth completed along the edges of picture and prediction.

Near a measured point the depth follows the point; between points it follows the model as far as the model has proven
right about its neighbourhood. Each place gets its own line from the model's values to metres, z = A v + B:

- A is the regression of measured on predicted values over the neighbouring points, shrunk towards 0 where the
  prediction hardly varies (the local linear model of the guided filter, He et al., TPAMI 2013, section 3.1, fitted
  to scattered points): a model that knows the slope of a floor keeps it, one that invents structure is flattened.
- B lets the line pass through the mean of the points near the place, each weighted by its distance in the picture, in
  colour and in predicted depth (joint bilateral upsampling, Kopf et al., SIGGRAPH 2007), so that a point
  speaks for its own surface.

Points are first averaged in cells as coarse as their density asks; a place asks the 3x3 (5x5, where points are few)
cells around it, and where these hold nothing of its kind, coarser cells answer, in the end the whole picture's fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.inference.sparse_points import FloatVector, Indices, SparsePoints
from diffusion_perception_ros.sample import FloatImage, UInt8Image


_LONG_SIDE = 320
"""Places along the longer side of the picture; 2 pixels apart in a picture of 640x480."""
_TOP = 5
"""Level of the coarsest cells: 2**4 places wide."""
_OCCUPIED = 0.2
"""Share of the cells with a point, where there are points at all, down to which cells are made finer."""
_SIGMA_SPACE = 0.6
"""In cells."""
_SIGMA_LUMA, _SIGMA_CHROMA = 12.0, 8.0
"""In 8-bit steps of Y and of Cr - Cb."""
_SIGMA_VALUE = 0.2
"""Relative difference of predicted depth."""
_RIDGE = 0.05
"""Relative scatter of predicted depth at which the regression is shrunk to half."""
_STEEPEST = 1.5
"""Largest A relative to that of the whole picture."""
_AGREES = 0.3
"""Difference of logarithms (a third) up to which neighbouring points support each other."""
_PRIOR = 1e-9
"""Weight of the coarser answer; a point at the place itself has weight 1."""
_FARTHEST = 60.0
"""Half squared distance in sigmas at which a weight is as good as none."""
_NEVER = 1e4
"""Coordinate of cells without points, beyond any distance."""

Image = TypeVar("Image", FloatImage, UInt8Image)


@dataclass(frozen=True)
class ScaleField:
    """Scale and shift in the model's quantity on a coarse grid over the picture."""

    scale: FloatImage
    shift: FloatImage
    """(h, w), the picture's edges at the grid's edges."""

    def apply(self, relative: FloatImage) -> FloatImage:
        """(H, W) relative values to the fitted quantity, in the same size."""
        size = relative.shape[1], relative.shape[0]
        fitted = cv2.multiply(relative, _resized(self.scale, size))
        return np.asarray(cv2.add(fitted, _resized(self.shift, size), fitted), np.float32)

    def faded(self, scale: float, shift: float, weight: float) -> ScaleField:
        """On the way to the fit of the whole picture: `weight` 1 is this field, 0 is (scale, shift) everywhere."""
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
        points: Measured pixels of the same picture.
        targets: (N,) what they measure in the model's quantity (metres, or 1/metres for disparity).
        scale, shift: The fit of the whole picture, targets = scale * values + shift.
        rgb: (H, W, 3), the picture; without it only the prediction tells surfaces apart.
    """
    width, height = _grid_size(relative.shape[1], relative.shape[0])
    predicted = _without_nan(_shrunk(relative, width, height)) * np.float32(scale) + np.float32(shift)
    guide = _guide(predicted, 0.25 * float(targets.min()), rgb)
    splats, levels = _splat(
        points, targets, points.values * np.float32(scale) + np.float32(shift), guide, relative.shape
    )
    slope: FloatImage = np.ones((1, 1), np.float32)
    offset: FloatImage = np.zeros((1, 1), np.float32)
    for level in levels:
        # coarse cells need fewer places, and can be asked for more of their neighbours in the same time
        stride = 1 if level <= 1 else 2 if level == levels[-1] else 1 << (level - 1)
        rings = 2 if level == levels[-1] and level > 1 else 1
        cells = splats.cells(level - levels[-1])
        slope, offset = _answer(_subsampled(guide, stride), cells, 1 << level, stride, rings, slope, offset)
    if stride > 1:
        size = guide[0].shape[::-1]
        slope, offset = (_resized(plane, size) for plane in (slope, offset))
    slope, offset = slope[:height, :width], offset[:height, :width]
    return ScaleField(slope * np.float32(scale), slope * np.float32(shift) + offset)


def _grid_size(width: int, height: int) -> tuple[int, int]:
    """Places along both sides."""
    longest = max(width, height)
    return max(1, round(width * _LONG_SIDE / longest)), max(1, round(height * _LONG_SIDE / longest))


def _resized(image: FloatImage, size: tuple[int, ...], interpolation: int = cv2.INTER_LINEAR) -> FloatImage:
    return np.asarray(cv2.resize(image, size[:2], interpolation=interpolation), np.float32)


def _shrunk(image: Image, width: int, height: int) -> Image:
    """Averaged down. Halving repeatedly is the mean over areas in a fraction of INTER_AREA's time."""
    while image.shape[0] >= 2 * height and image.shape[1] >= 2 * width:
        half = (image.shape[1] + 1) // 2, (image.shape[0] + 1) // 2
        image = np.asarray(cv2.resize(image, half), image.dtype)
    return np.asarray(cv2.resize(image, (width, height)), image.dtype)


def _without_nan(coarse: FloatImage) -> FloatImage:
    """Invalid predictions (and what they have spread to) replaced by the median, which tells no surfaces apart."""
    invalid = np.isnan(coarse)
    return np.where(invalid, np.nanmedian(coarse), coarse) if invalid.any() else coarse


def _guide(predicted: FloatImage, floor: float, rgb: UInt8Image | None) -> list[FloatImage]:
    """What surfaces are told apart by, in units of its sigma: (luma, chroma,) log of the prediction.

    Each is (h, w), raised to whole cells of the coarsest level.
    """
    half = np.float32(np.sqrt(0.5))
    planes = [cv2.log(np.maximum(predicted, np.float32(floor))) * (half / np.float32(_SIGMA_VALUE))]
    if rgb is not None:
        small = _shrunk(rgb, predicted.shape[1], predicted.shape[0])
        luma, red, blue = cv2.split(cv2.cvtColor(small, cv2.COLOR_RGB2YCrCb))
        planes.append(np.multiply(luma, half / np.float32(_SIGMA_LUMA), dtype=np.float32))
        planes.append(np.subtract(red, blue, dtype=np.float32) * (half / np.float32(_SIGMA_CHROMA)))
    down, right = (-side % (1 << _TOP) for side in predicted.shape)
    padded = (cv2.copyMakeBorder(plane, 0, down, 0, right, cv2.BORDER_REPLICATE) for plane in planes)
    return [np.asarray(plane, np.float32) for plane in padded]


@dataclass(frozen=True)
class _Cells:
    """Means over the points of each cell of one level, (ch, cw) each."""

    occupied: FloatImage
    """1 or 0."""
    position: FloatImage
    """(ch, cw, 2): row and column in places, `_NEVER` without points."""
    guide: FloatImage
    """(ch, cw, C)."""
    target: FloatImage
    predicted: FloatImage

    def slope(self) -> FloatImage:
        """(ch, cw) regression of target on prediction over 5x5 cells, relative errors weighted alike."""
        weight = self.occupied / np.maximum(self.target, np.float32(1e-6)) ** 2
        target, predicted = weight * self.target, weight * self.predicted
        products = cv2.merge([target, predicted, predicted * self.target, predicted * self.predicted])
        total = cv2.blur(weight, (5, 5), borderType=cv2.BORDER_CONSTANT) + np.float32(1e-12)
        sums = cv2.blur(products, (5, 5), borderType=cv2.BORDER_CONSTANT)
        target, predicted, cross, square = cv2.split(sums / total[..., None])
        variance = np.maximum(square - predicted * predicted, 0)
        slope = (cross - target * predicted) / (variance + (_RIDGE * target) ** 2 + np.float32(1e-12))
        return np.asarray(cv2.blur(np.clip(slope, 0, np.float32(_STEEPEST)), (3, 3)), np.float32)


@dataclass(frozen=True)
class _Splats:
    """One point per cell of the finest level; 0 without a point."""

    near: FloatImage
    """(ch, cw, 4): 1, row, column, target."""
    kind: FloatImage
    """(ch, cw, 1 + C): prediction, guide."""

    def cells(self, halvings: int) -> _Cells:
        """Means over 2**halvings x 2**halvings cells."""
        near, kind = self.near, self.kind
        if halvings:
            size = near.shape[1] >> halvings, near.shape[0] >> halvings
            near, kind = (_resized(image, size, cv2.INTER_AREA) for image in (near, kind))
        empty = near[..., 0] == 0
        share = np.where(empty, np.float32(1), near[..., 0])[..., None]
        near, kind = near / share, kind / share
        near[empty] = 0, _NEVER, _NEVER, 0
        occupied, _, _, target = cv2.split(near)
        return _Cells(occupied, near[..., 1:3], kind[..., 1:], target, np.ascontiguousarray(kind[..., 0]))


def _splat(
    points: SparsePoints, targets: FloatVector, predicted: FloatVector, guide: list[FloatImage], shape: tuple[int, ...]
) -> tuple[_Splats, list[int]]:
    """The points in cells, and the levels of cells to ask, coarse to fine; the splats are those of the finest."""
    width, height = _grid_size(shape[1], shape[0])
    rows, columns = points.rows * height // shape[0], points.columns * width // shape[1]
    levels = _levels(rows, columns, guide[0].shape)
    cells = rows >> levels[-1], columns >> levels[-1]
    size = guide[0].shape[0] >> levels[-1], guide[0].shape[1] >> levels[-1]
    exact_rows = (points.rows + 0.5) * (height / shape[0]) - 0.5
    exact_columns = (points.columns + 0.5) * (width / shape[1]) - 0.5
    near = np.zeros((*size, 4), np.float32)
    near[cells] = np.stack([np.ones_like(targets), exact_rows, exact_columns, targets], axis=-1)
    kind = np.zeros((*size, 1 + len(guide)), np.float32)
    kind[cells] = np.stack([predicted, *(plane[rows, columns] for plane in guide)], axis=-1)
    wrong = _isolated(near)
    near[wrong], kind[wrong] = 0, 0
    return _Splats(near, kind), levels


def _levels(rows: Indices, columns: Indices, shape: tuple[int, ...]) -> list[int]:
    """The finest level at which enough of the cells hold points, where there are points at all, and one coarser."""
    occupied = np.zeros(shape, np.float32)
    occupied[rows, columns] = 1
    shares = [cv2.countNonZero(occupied)]
    for level in range(1, _TOP + 1):
        half = occupied.shape[1] // 2, occupied.shape[0] // 2
        occupied = _resized(occupied, half, cv2.INTER_AREA)
        shares.append(cv2.countNonZero(occupied) << (2 * level))
    finest = next(level for level, share in enumerate(shares) if share > _OCCUPIED * shares[-1])
    return sorted({finest, min(_TOP, max(finest + 2, 3))}, reverse=True)


def _isolated(near: FloatImage) -> npt.NDArray[np.bool_]:
    """Points that none of at least 3 neighbours agrees with: wrong returns, flying pixels, holes in a surface."""
    occupied, _, _, target = cv2.split(near)
    empty = occupied == 0
    logarithm = cv2.log(np.where(empty, np.float32(1), target))
    padded = cv2.copyMakeBorder(
        np.where(empty, np.float32(_NEVER), logarithm), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=_NEVER
    )
    height, width = target.shape
    supported, difference = np.zeros((height, width), np.uint8), np.empty((height, width), np.float32)
    for top in range(3):
        for left in range(3):
            if (top, left) != (1, 1):
                cv2.absdiff(logarithm, padded[top : top + height, left : left + width], difference)
                cv2.bitwise_or(supported, (difference < _AGREES).astype(np.uint8), supported)
    neighbours = cv2.boxFilter(occupied, -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT)
    isolated: npt.NDArray[np.bool_] = (supported == 0) & (neighbours > 3.5) & ~empty
    return isolated


def _subsampled(guide: list[FloatImage], stride: int) -> list[FloatImage]:
    size = guide[0].shape[1] // stride, guide[0].shape[0] // stride
    return guide if stride == 1 else [_resized(plane, size, cv2.INTER_AREA) for plane in guide]


def _answer(
    guide: list[FloatImage],
    cells: _Cells,
    width_of_cell: int,
    stride: int,
    rings: int,
    slope: FloatImage,
    offset: FloatImage,
) -> tuple[FloatImage, FloatImage]:
    """What the cells of a level and, with little weight, the coarser answer say about every place.

    Args:
        guide: (h, w) each, of the places.
        cells: Of `width_of_cell` finest places.
        stride: Finest places per place.
        rings: Of neighbouring cells around a place's own that are asked.
        slope, offset: The coarser answer, (1, 1) or larger.
    """
    shape = guide[0].shape
    size, reach = shape[::-1], width_of_cell // stride
    unit = np.float32(np.sqrt(0.5) / (_SIGMA_SPACE * width_of_cell))
    row, column = (((np.arange(side, dtype=np.float32) + 0.5) * stride - 0.5) * unit for side in shape)
    here = [np.repeat(row[:, None], shape[1], axis=1), np.repeat(column[None], shape[0], axis=0), *guide]
    there = [*_spread(cells.position * unit, reach, rings), *_spread(cells.guide, reach, rings)]
    (targets,), (predictions,) = (_spread(plane, reach, rings) for plane in (cells.target, cells.predicted))
    weight, target, predicted, part = np.zeros((4, *shape), np.float32)
    distance = np.empty(shape, np.float32)
    offsets = range(0, (2 * rings + 1) * reach, reach)
    for top in offsets:
        for left in offsets:
            window = np.s_[top : top + shape[0], left : left + shape[1]]
            # OpenCV's accumulators need half of the passes over memory that NumPy would
            cv2.subtract(here[0], there[0][window], part)
            cv2.multiply(part, part, distance)
            for mine, theirs in zip(here[1:], there[1:], strict=True):
                cv2.accumulateSquare(cv2.subtract(mine, theirs[window], part), distance)
            # exp makes denormal numbers of larger distances, which take the processor a hundred times as long
            np.minimum(distance, np.float32(_FARTHEST), out=distance)
            cv2.exp(np.negative(distance, out=distance), part)
            cv2.accumulate(part, weight)
            cv2.accumulateProduct(part, targets[window], target)
            cv2.accumulateProduct(part, predictions[window], predicted)
    slope, offset = (_resized(plane, size) * np.float32(_PRIOR) for plane in (slope, offset))
    local = _resized(cells.slope(), size)
    total = weight + np.float32(_PRIOR)
    return (weight * local + slope) / total, (target - local * predicted + offset) / total


def _spread(cells: FloatImage, reach: int, rings: int) -> list[FloatImage]:
    """The planes of cells, (ch, cw) or (ch, cw, C), as places, with a border of `rings` cells."""
    padded = cv2.copyMakeBorder(cells, rings, rings, rings, rings, cv2.BORDER_REPLICATE)
    size = padded.shape[1] * reach, padded.shape[0] * reach
    spread = _resized(np.asarray(padded, np.float32), size, cv2.INTER_NEAREST)
    return [np.asarray(plane, np.float32) for plane in cv2.split(spread)]
