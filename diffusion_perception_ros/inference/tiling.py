"""Large images in overlapping tiles, each at the model's full resolution, blended without seams.

Affine-invariant depth has another scale and shift in every tile: each is first aligned by least squares with one
prediction of the whole image, which is less detailed but consistent. What cannot be blended (instances, the mask of
a prompt, keypoints) is taken from the whole image.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.sample import FloatImage, Prediction, UInt8Image, UInt16Image


_AVERAGED = (
    "depth",
    "depth_relative",
    "confidence",
    "normals",
    "normals_confidence",
    "flow",
    "alpha",
    "albedo",
    "shading",
    "residual",
    "material",
)
"""Maps of `Prediction` that are blended by weighted means."""


@dataclass(frozen=True)
class Tile:
    """Size of the tiles in pixels of the camera image."""

    size: int
    overlap: int

    def __post_init__(self) -> None:
        if self.size < 64 or not 0 < self.overlap <= self.size // 2:
            raise InputError(
                f"tiles need a size of at least 64 pixels and an overlap of 1 pixel up to half of it, got "
                f"{self.size}/{self.overlap}"
            )

    @classmethod
    def parse(cls, text: str) -> Tile:
        """Reads `size/overlap`, or `size` with an overlap of an eighth.

        Raises:
            InputError: it is not that.
        """
        match = re.fullmatch(r"(\d{1,6})(?:/(\d{1,6}))?", text.strip())
        if match is None:
            raise InputError(f"tiles are given as SIZE/OVERLAP in pixels, for example 768/96; got '{text}'")
        size = int(match[1])
        return cls(size, int(match[2]) if match[2] else size // 8)


@dataclass(frozen=True)
class Window:
    """Part of an image, in pixels."""

    left: int
    top: int
    width: int
    height: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


def windows(tile: Tile, width: int, height: int) -> list[Window]:
    """Tiles that cover an image of width x height with at least the overlap; one if the image is no larger."""
    columns, rows = _starts(tile, width), _starts(tile, height)
    return [Window(left, top, min(tile.size, width), min(tile.size, height)) for top in rows for left in columns]


def predict_tiled(
    rgb: UInt8Image, tile: Tile, whole: Prediction, predict: Callable[[Window], Prediction]
) -> Prediction:
    """Predicts on every tile and blends.

    Args:
        rgb: (H, W, 3), larger than a tile.
        tile: Size and overlap.
        whole: Of the whole image. Its arrays are replaced or kept, never changed.
        predict: Prediction of one window of the image, in the window's size.
    """
    height, width = rgb.shape[:2]
    blends = {name: _Blend((height, width)) for name in _AVERAGED if getattr(whole, name) is not None}
    classes = _Classes(whole.semantic) if whole.semantic is not None else None
    for window in windows(tile, width, height):
        part = predict(window)
        weights = _weights(window, tile, width, height)
        for name, blend in blends.items():
            values = getattr(part, name)
            if values is None:
                continue
            if name == "depth_relative":
                assert whole.depth_relative is not None
                values = align_depth(values, whole.depth_relative[window.slices])
            blend.add(values, weights, window)
        if classes is not None and part.semantic is not None and part.semantic_confidence is not None:
            classes.add(part.semantic, part.semantic_confidence, weights, window)
    for name, blend in blends.items():
        setattr(whole, name, blend.result())
    if whole.depth_relative is not None:
        whole.depth_relative = np.clip(whole.depth_relative, 0.0, 1.0)
    if whole.normals is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            whole.normals = whole.normals / np.linalg.norm(whole.normals, axis=2, keepdims=True)
    if classes is not None:
        whole.semantic, whole.semantic_confidence = classes.ids, classes.confidence
    return whole


def align_depth(depth: FloatImage, reference: FloatImage) -> FloatImage:
    """Scale and shift, by least squares over what is finite in both, that bring `depth` nearest to `reference`.

    A flat or inverted tile is flattened to the mean of the reference rather than turned over.
    """
    both = np.isfinite(depth) & np.isfinite(reference)
    if not both.any():
        return depth
    x, y = depth[both].astype(np.float64), reference[both].astype(np.float64)
    variance = x.var()
    scale = max(0.0, float(np.mean((x - x.mean()) * (y - y.mean())) / variance)) if variance > 1e-8 else 0.0
    return (np.float32(scale) * (depth - np.float32(x.mean())) + np.float32(y.mean())).astype(np.float32)


class _Blend:
    """Weighted mean of a map; where a tile has no finite value the others count, and where none has, it is kept."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self._shape = shape
        self._sum: FloatImage | None = None
        self._weight = np.zeros(shape, np.float32)
        self._invalid = np.full(shape, np.nan, np.float32)

    def add(self, values: FloatImage, weights: FloatImage, window: Window) -> None:
        if self._sum is None:
            self._sum = np.zeros((*self._shape, *values.shape[2:]), np.float32)
        scalar = values if values.ndim == 2 else values.sum(axis=2)
        finite = np.isfinite(scalar)
        weights = np.where(finite, weights, np.float32(0.0))
        spread = weights if values.ndim == 2 else weights[..., None]
        known = finite if values.ndim == 2 else finite[..., None]
        self._sum[window.slices] += spread * np.where(known, values, np.float32(0.0))
        self._weight[window.slices] += weights
        np.copyto(self._invalid[window.slices], scalar, where=~finite)

    def result(self) -> FloatImage | None:
        if self._sum is None:
            return None
        weight = self._weight if self._sum.ndim == 2 else self._weight[..., None]
        invalid = self._invalid if self._sum.ndim == 2 else self._invalid[..., None]
        return np.where(weight > 0, self._sum / np.maximum(weight, np.float32(1e-9)), invalid)


class _Classes:
    """The class of the tile that is surest, weighted by how far the pixel is from the tile's border."""

    def __init__(self, ids: UInt8Image | UInt16Image) -> None:
        self.ids = ids.copy()
        self.confidence = np.zeros(ids.shape, np.float32)
        self._best = np.full(ids.shape, -1.0, np.float32)

    def add(self, ids: UInt8Image | UInt16Image, confidence: FloatImage, weights: FloatImage, window: Window) -> None:
        votes = confidence * weights
        wins = votes > self._best[window.slices]
        for target, values in ((self.ids, ids), (self.confidence, confidence), (self._best, votes)):
            np.copyto(target[window.slices], values, where=wins)


def _starts(tile: Tile, side: int) -> list[int]:
    """First pixels of the tiles along a side, evenly spread."""
    if side <= tile.size:
        return [0]
    count = -(-(side - tile.overlap) // (tile.size - tile.overlap))
    return [round(index * (side - tile.size) / (count - 1)) for index in range(count)]


def _weights(window: Window, tile: Tile, width: int, height: int) -> FloatImage:
    """(h, w) in (0, 1]: falls over the overlap towards borders that are not borders of the image."""
    columns = _ramp(window.width, tile.overlap, window.left > 0, window.left + window.width < width)
    rows = _ramp(window.height, tile.overlap, window.top > 0, window.top + window.height < height)
    return rows[:, None] * columns[None, :]


def _ramp(length: int, overlap: int, at_start: bool, at_end: bool) -> FloatImage:
    rising = (np.arange(length, dtype=np.float32) + 0.5) / overlap
    ramp: FloatImage = np.ones(length, np.float32)
    if at_start:
        ramp = np.minimum(ramp, rising)
    if at_end:
        ramp = np.minimum(ramp, rising[::-1])
    return ramp
