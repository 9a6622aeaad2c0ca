"""The resize filters of torchvision and Pillow, which published models were trained with and OpenCV does not have.

Both are separable: a resize is two passes of a few weighted rows or columns. The weights of a pair of sizes are kept.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.sample import FloatImage, UInt8Image


Filter = Literal["bilinear_antialias", "nearest_exact"]
"""`bilinear_antialias`: a triangle, as wide as the larger of a pixel before and after (Pillow's BILINEAR, torch's
`interpolate(mode="bilinear", antialias=True)`). `nearest_exact`: the pixel under the new pixel's centre."""


def resample(image: UInt8Image | FloatImage, width: int, height: int, kind: Filter) -> FloatImage:
    """(H, W) or (H, W, C) → (height, width) or (height, width, C), float32."""
    rows, columns = image.shape[:2]
    if kind == "nearest_exact":
        picked = image[_nearest(rows, height)][:, _nearest(columns, width)]
        return np.ascontiguousarray(picked, np.float32)
    result: FloatImage = np.asarray(image, np.float32)
    if columns != width:
        result = _weighted(result, *_triangle(columns, width), axis=1)
    if rows != height:
        result = _weighted(result, *_triangle(rows, height), axis=0)
    return result


def _weighted(image: FloatImage, first: npt.NDArray[np.intp], weights: FloatImage, axis: int) -> FloatImage:
    """Sums of neighbours along an axis."""
    most = image.shape[axis] - 1
    shape = [1] * image.ndim
    shape[axis] = len(first)
    total: FloatImage | None = None
    for place, weight in enumerate(weights):
        part = np.take(image, np.minimum(first + place, most), axis=axis)
        part *= weight.reshape(shape)
        total = part if total is None else np.add(total, part, out=total)
    assert total is not None
    return total


@lru_cache(maxsize=32)
def _triangle(before: int, after: int) -> tuple[npt.NDArray[np.intp], FloatImage]:
    """First neighbour of every new pixel, and (neighbours, after) weights, which sum to 1."""
    scale = np.float32(before / after)  # in float32, as torch does it: far from the corner it shows
    reach = np.maximum(scale, np.float32(1.0))
    centres = scale * (np.arange(after, dtype=np.float32) + np.float32(0.5))
    first = np.maximum((centres - reach + np.float32(0.5)).astype(np.intp), 0)
    last = np.minimum((centres + reach + np.float32(0.5)).astype(np.intp), before)
    places = first[None] + np.arange((last - first).max())[:, None]  # (neighbours, after)
    distances = np.abs(places.astype(np.float32) - centres + np.float32(0.5)) / reach
    weights = np.maximum(np.float32(0.0), np.float32(1.0) - distances) * (places < last)
    return first, cast(FloatImage, (weights / weights.sum(axis=0)).astype(np.float32))


@lru_cache(maxsize=32)
def _nearest(before: int, after: int) -> npt.NDArray[np.intp]:
    places = ((np.arange(after) + 0.5) * (before / after)).astype(np.intp)
    return np.minimum(places, before - 1)
