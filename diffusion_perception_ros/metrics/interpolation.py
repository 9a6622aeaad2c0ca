"""Depth completion that needs no model: what sparse points give when they are interpolated."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from matplotlib.tri import LinearTriInterpolator, Triangulation

from diffusion_perception_ros.sample import FloatImage, UInt8Image


BoolImage = npt.NDArray[np.bool_]

JOINT_NEIGHBOURS = 16
JOINT_SIGMA_SPACE = 0.5
"""In mean distances of the points."""
JOINT_SIGMA_COLOUR = 8.0
"""In units of CIELAB. Both sigmas are the best of a search on the red kitchen and RGB-D frames at 0.1 % and 1 %."""
_BLOCK = 1 << 15
_KD_TREE: dict[str, bool | int | float | str] = {"algorithm": 4}  # FLANN_INDEX_KDTREE_SINGLE: exact


def nearest(depth: FloatImage, given: BoolImage, step: int = 1) -> FloatImage:
    """Depth of the nearest given pixel, for every `step`-th row and column."""
    _, order = _neighbours(given, 1, step)
    return depth[given][order[:, 0]].reshape(depth[::step, ::step].shape)


def linear(depth: FloatImage, given: BoolImage) -> FloatImage:
    """(H, W) linear on the triangles of the given pixels (Delaunay); outside their hull that of the nearest."""
    rows, columns = np.nonzero(given)
    filled = nearest(depth, given)
    try:
        triangles = Triangulation(columns, rows)
    except (RuntimeError, ValueError):  # all on one line
        return filled
    grid = np.meshgrid(np.arange(depth.shape[1]), np.arange(depth.shape[0]))
    inside = LinearTriInterpolator(triangles, depth[given])(*grid)
    missing = np.broadcast_to(inside.mask, depth.shape)
    return np.where(missing, filled, inside.data).astype(np.float32)


def joint_bilateral(depth: FloatImage, given: BoolImage, rgb: UInt8Image, step: int = 1) -> FloatImage:
    """Mean of the nearest given pixels, weighted by distance and colour, for every `step`-th row and column.

    Joint bilateral upsampling (Kopf et al., SIGGRAPH 2007) from scattered samples, in CIELAB.
    """
    count = int(np.count_nonzero(given))
    distances, order = _neighbours(given, min(JOINT_NEIGHBOURS, count), step)
    spacing = np.sqrt(np.count_nonzero(np.isfinite(depth)) / count)
    lab = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    samples, colours, places = depth[given], lab[given], lab[::step, ::step].reshape(-1, 3)
    result = np.empty(len(places), np.float32)
    for start in range(0, len(places), _BLOCK):
        block = np.s_[start : start + _BLOCK]
        near = order[block]
        space = np.exp(-distances[block] / (2 * (JOINT_SIGMA_SPACE * spacing) ** 2))
        colour = ((colours[near] - places[block, None]) ** 2).sum(axis=-1)
        # where no colour fits, and where all points are far, the nearest counts
        weight = space * np.exp(-colour / (2 * JOINT_SIGMA_COLOUR**2))
        weight += 1e-12 * np.exp(-np.sqrt(distances[block]) / spacing)
        result[block] = (weight * samples[near]).sum(axis=1) / weight.sum(axis=1)
    return result.reshape(depth[::step, ::step].shape)


def _neighbours(given: BoolImage, count: int, step: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int32]]:
    """Squared distances in pixels to the `count` nearest given pixels, and which of them (row by row).

    (M, count) each, for the M pixels of every `step`-th row and column.
    """
    tree = cv2.flann.Index(np.argwhere(given).astype(np.float32), _KD_TREE)
    rows, columns = np.indices(given.shape, np.float32)[:, ::step, ::step]
    order, distances = tree.knnSearch(np.stack([rows.ravel(), columns.ravel()], axis=1), count, params={})
    return np.asarray(distances, np.float64), np.asarray(order, np.int32)
