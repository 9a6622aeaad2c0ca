"""Scores of depth, normals, segmentation, instances and flow. Formulas and sources are in docs/evaluation.md."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.sample import UNKNOWN_INSTANCE


FloatArray = npt.NDArray[np.float64]
BoolImage = npt.NDArray[np.bool_]
Scores = dict[str, float]

DELTA = 1.25
NORMAL_LIMITS_DEGREES = (11.25, 22.5, 30.0)
BOUNDARY_TOLERANCE = 0.0075
"""Share of the image diagonal by which a boundary may be off."""
FLOW_OUTLIER = (3.0, 0.05)
"""A flow vector is an outlier if it is off by more than so many pixels, and by more than that share of its length."""


def depth_scores(prediction: FloatArray, depth: FloatArray) -> Scores:
    """AbsRel, RMSE (m) and the share of pixels within a factor 1.25, 1.25^2 and 1.25^3.

    Args:
        prediction: (N,) metres; NaN or infinite where the model gives nothing: such pixels miss every delta, are left
            out of AbsRel and RMSE, and show as a `coverage` below 1. Values <= 0 miss every delta.
        depth: (N,) ground truth in metres, finite and positive, N > 0.
    """
    given = np.isfinite(prediction)
    error = np.abs(prediction[given] - depth[given])
    ratio = np.full(depth.shape, np.inf)
    positive = given & (prediction > 0)
    ratio[positive] = np.maximum(prediction[positive] / depth[positive], depth[positive] / prediction[positive])
    scores = {
        "absrel": float(np.mean(error / depth[given])) if error.size else math.nan,
        "rmse": float(np.sqrt(np.mean(error**2))) if error.size else math.nan,
    }
    for power in (1, 2, 3):
        scores[f"delta{power}"] = float(np.mean(ratio < DELTA**power))
    return scores | {"coverage": float(given.mean())}


def angles_between(first: npt.NDArray[np.floating], second: npt.NDArray[np.floating]) -> FloatArray:
    """Angle in degrees between vectors of any length along the last axis; NaN where one is NaN or zero."""
    with np.errstate(invalid="ignore", divide="ignore"):
        a = first.astype(np.float64) / np.linalg.norm(first, axis=-1, keepdims=True)
        b = second.astype(np.float64) / np.linalg.norm(second, axis=-1, keepdims=True)
        # The half-angle form stays exact for tiny angles, where arccos of the dot product loses half the digits.
        angles: FloatArray = np.degrees(2 * np.arctan2(np.linalg.norm(a - b, axis=-1), np.linalg.norm(a + b, axis=-1)))
    return angles


def normal_scores(errors: FloatArray) -> Scores:
    """Mean and median angular error in degrees and the share of pixels below 11.25, 22.5 and 30 degrees.

    Args:
        errors: (N,) angles from `angles_between` over the pixels with ground truth; NaN = no prediction (a miss).
    """
    given = errors[np.isfinite(errors)]
    scores = {
        "mean": float(given.mean()) if given.size else math.nan,
        "median": float(np.median(given)) if given.size else math.nan,
    }
    for limit in NORMAL_LIMITS_DEGREES:
        scores[f"below_{limit:g}"] = float(np.mean(np.where(np.isfinite(errors), errors, np.inf) < limit))
    return scores


def confusion_matrix(
    prediction: npt.NDArray[np.integer], truth: npt.NDArray[np.integer], classes: int
) -> npt.NDArray[np.int64]:
    """Pixel counts, shape (classes, classes + 1): rows are the true class, columns the predicted one.

    The last column counts predictions that are none of the classes. Pixels whose truth is none of them are left out.
    """
    counted = (truth >= 0) & (truth < classes)
    rows = truth[counted].astype(np.int64)
    columns = prediction[counted].astype(np.int64)
    columns = np.where((columns >= 0) & (columns < classes), columns, classes)
    counts = np.bincount(rows * (classes + 1) + columns, minlength=classes * (classes + 1))
    return counts.reshape(classes, classes + 1)


def intersection_over_union(confusion: npt.NDArray[np.int64]) -> FloatArray:
    """IoU per class, shape (classes,); NaN for a class that neither occurs nor is predicted."""
    hit = np.diag(confusion).astype(np.float64)
    union = confusion.sum(axis=1) + confusion[:, :-1].sum(axis=0) - hit
    iou: FloatArray = np.divide(hit, union, out=np.full(hit.shape, np.nan), where=union > 0)
    return iou


def segmentation_scores(confusion: npt.NDArray[np.int64]) -> Scores:
    """Mean IoU over the classes that occur in the ground truth, and the share of pixels that are right."""
    present = confusion.sum(axis=1) > 0
    if not present.any():
        return {"miou": math.nan, "accuracy": math.nan}
    return {
        "miou": float(np.nanmean(intersection_over_union(confusion)[present])),
        "accuracy": float(np.trace(confusion) / confusion.sum()),
    }


def boundary_f1(prediction: npt.NDArray[np.integer], truth: npt.NDArray[np.integer], classes: int) -> float:
    """Mean over the classes present in the truth of the F1 of their boundaries (the BF score of Csurka et al., 2013).

    A boundary pixel is found if the other map has a boundary pixel of that class within `BOUNDARY_TOLERANCE` times the
    diagonal. Pixels without truth (and the border of such regions) are left out.

    Args:
        prediction, truth: (H, W) class ids; truth outside 0 .. classes - 1 is unknown.

    Returns:
        F1 in [0, 1]; NaN if no class of the truth has a boundary.
    """
    known = (truth >= 0) & (truth < classes)
    radius = max(1, round(BOUNDARY_TOLERANCE * math.hypot(*truth.shape)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    clear = cv2.erode(known.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=1).astype(bool)
    scores = []
    for index in np.unique(truth[known]):
        true_edge = _boundary(truth == index) & clear
        if not true_edge.any():
            continue
        found_edge = _boundary(prediction == index) & clear
        recall = float(_near(found_edge, disc)[true_edge].mean())
        precision = float(_near(true_edge, disc)[found_edge].mean()) if found_edge.any() else 0.0
        scores.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return float(np.mean(scores)) if scores else math.nan


def _boundary(mask: BoolImage) -> BoolImage:
    """The pixels of the mask that touch a pixel outside it; the image border is not a boundary."""
    inner = cv2.erode(mask.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)), borderValue=1)
    boundary: BoolImage = mask & (inner == 0)
    return boundary


def _near(edge: BoolImage, disc: npt.NDArray[Any]) -> BoolImage:
    near: BoolImage = cv2.dilate(edge.astype(np.uint8), disc) > 0
    return near


def instance_scores(prediction: npt.NDArray[np.integer], truth: npt.NDArray[np.integer]) -> Scores:
    """How well predicted instances cover the true objects, whatever their class.

    `coverage` is the mean over true objects of the best IoU with any predicted instance (Hoiem et al., 2011,
    unweighted); `found` is the share of objects whose best IoU is at least 0.5.

    Args:
        prediction, truth: (H, W) ids, 0 = no instance; `UNKNOWN_INSTANCE` in the truth is left out.
    """
    known = truth != UNKNOWN_INSTANCE
    true_ids, true_index = np.unique(truth[known], return_inverse=True)
    found_ids, found_index = np.unique(prediction[known], return_inverse=True)
    overlap = np.bincount(true_index * len(found_ids) + found_index, minlength=len(true_ids) * len(found_ids))
    overlap = overlap.reshape(len(true_ids), len(found_ids)).astype(np.float64)
    union = overlap.sum(axis=1, keepdims=True) + overlap.sum(axis=0, keepdims=True) - overlap
    iou = (overlap / union)[true_ids != 0][:, found_ids != 0]
    if not iou.shape[0]:
        return {"coverage": math.nan, "found": math.nan}
    best = iou.max(axis=1, initial=0.0)
    return {"coverage": float(best.mean()), "found": float((best >= 0.5).mean())}


def flow_scores(prediction: FloatArray, truth: FloatArray) -> Scores:
    """`epe`, the mean distance of the vectors' ends in pixels, and `outliers`, the share that KITTI 2015 calls wrong.

    Args:
        prediction: (N, 2) pixels, finite.
        truth: (N, 2) pixels, finite, N > 0.
    """
    error = np.linalg.norm(prediction - truth, axis=1)
    pixels, share = FLOW_OUTLIER
    wrong = (error > pixels) & (error > share * np.linalg.norm(truth, axis=1))
    return {"epe": float(error.mean()), "outliers": float(wrong.mean())}
