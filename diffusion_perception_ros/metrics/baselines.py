"""Answers that never look at the image. A model that does not beat them has learnt nothing of it.

They are fitted to the ground truth of the very image they are scored on, so each is the best of its family there:
a harder bar than any fixed guess. A row is the image row v; `row_plane` is the fitted vertical gradient.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.metrics.alignment import align_affine, align_affine_inverse


FloatArray = npt.NDArray[np.float64]


def depth_baselines(rows: npt.NDArray[np.integer], depth: FloatArray) -> dict[str, FloatArray]:
    """Metres predicted for the pixels with ground truth.

    Args:
        rows: (N,) image row of each pixel.
        depth: (N,) ground truth in metres.

    Returns:
        `constant` (the mean depth), `row_plane` (depth = a row + b), `row_plane_inverse_depth` (1/depth = a row + b),
        each (N,), by least squares.
    """
    position = rows.astype(np.float64)
    return {
        "constant": np.full_like(depth, depth.mean()),
        "row_plane": align_affine(position, depth),
        "row_plane_inverse_depth": align_affine_inverse(position, depth),
    }


def normal_baselines(rows: npt.NDArray[np.integer], normals: FloatArray) -> dict[str, FloatArray]:
    """Unit vectors predicted for the pixels with ground truth.

    Args:
        rows: (N,) image row of each pixel.
        normals: (N, 3) ground truth.

    Returns:
        `facing_camera` (0, 0, -1), `constant` (the mean normal) and `row_gradient` (each component = a row + b by
        least squares), each (N, 3), normalised.
    """
    position = rows.astype(np.float64)
    gradient = np.stack([align_affine(position, normals[:, axis]) for axis in range(3)], axis=1)
    return {
        "facing_camera": np.broadcast_to(np.array([0.0, 0.0, -1.0]), normals.shape),
        "constant": _unit(np.broadcast_to(normals.mean(axis=0), normals.shape)),
        "row_gradient": _unit(gradient),
    }


def _unit(vectors: FloatArray) -> FloatArray:
    unit: FloatArray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit


def majority_class(truth: npt.NDArray[np.integer], classes: int) -> npt.NDArray[np.int64]:
    """(H, W) map of the image's most frequent class."""
    counts = np.bincount(truth[truth < classes].ravel(), minlength=classes)
    return np.full(truth.shape, int(counts.argmax()), np.int64)


def majority_class_per_row(truth: npt.NDArray[np.integer], classes: int) -> npt.NDArray[np.int64]:
    """(H, W) map of the most frequent class of each row (of the image, where a row has no labels): bands."""
    answer = majority_class(truth, classes)
    for row, labels in enumerate(truth):
        known = labels[labels < classes]
        if known.size:
            answer[row] = int(np.bincount(known, minlength=classes).argmax())
    return answer
