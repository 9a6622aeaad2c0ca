"""Scores of masks, opacity and keypoints."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


Scores = dict[str, float]

PCK_SHARE = 0.2
"""A joint is found within this share of the longer side of the box around its person (Yang and Ramanan, 2013)."""


def mask_scores(prediction: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> Scores:
    """Intersection over union of two masks (H, W); NaN if both are empty."""
    union = np.count_nonzero(prediction | truth)
    return {"iou": np.count_nonzero(prediction & truth) / union if union else math.nan}


def alpha_scores(prediction: npt.NDArray[np.floating], truth: npt.NDArray[np.floating]) -> Scores:
    """`mae`, mean absolute error, and `sad`, its sum over the image in thousands, as matting papers give it.

    Args:
        prediction, truth: (H, W) opacity in [0, 1]; NaN in the truth is left out.
    """
    known = np.isfinite(truth)
    error = np.abs(prediction[known].astype(np.float64) - truth[known])
    return {"mae": float(error.mean()) if error.size else math.nan, "sad": float(error.sum()) / 1000.0}


def keypoint_scores(found: npt.NDArray[np.floating], people: npt.NDArray[np.floating]) -> Scores:
    """`pck`, the share of the visible joints that were found; `precision`, the share of what was found that is one.

    Args:
        found: (K, 4) u, v, confidence, number of the joint; or (K, 3), points without names, which match any joint.
        people: (P, J, 3) u, v, visibility; only joints of visibility 2 count for `pck`, hidden ones are no mistakes.

    Returns:
        NaN for what has nothing to be counted on.
    """
    hits, matched, visible = 0, np.zeros(len(found), bool), 0
    for person in people:
        present = person[:, 2] > 0
        if not present.any():
            continue
        reach = PCK_SHARE * float(np.ptp(person[present, :2], axis=0).max())
        for number in np.flatnonzero(present):
            near = np.hypot(*(found[:, :2] - person[number, :2]).T) <= reach
            if found.shape[1] == 4:
                near &= found[:, 3] == number
            matched |= near
            if person[number, 2] == 2:
                visible += 1
                hits += bool(near.any())
    return {
        "pck": hits / visible if visible else math.nan,
        "precision": float(matched.mean()) if len(found) else math.nan,
    }
