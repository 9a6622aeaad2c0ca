"""Bringing a depth that is known up to scale, or scale and shift, onto metric ground truth before it is scored.

Affine alignment by least squares per image, in depth or in inverse depth, is the protocol of MiDaS (Ranftl et al.,
"Towards Robust Monocular Depth Estimation", TPAMI 2022, section 5) and Marigold (Ke et al., CVPR 2024, section 4.1).
Scaling by the ratio of medians is that of Zhou et al., "Unsupervised Learning of Depth and Ego-Motion", CVPR 2017.
All functions take flat float arrays of the pixels that count: `prediction` and `depth` (N,), finite, are what is
fitted; the fit is applied to `apply_to` (default: the prediction), which may hold pixels without ground truth.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


FloatArray = npt.NDArray[np.float64]

INVERSE_DEPTH_FLOOR = 0.01
"""1/m. A fitted inverse depth below this (beyond 100 m, or behind the camera) is raised to it before inverting."""


def fit_scale_shift(source: FloatArray, target: FloatArray) -> tuple[float, float]:
    """Scale s and shift t that minimise sum((s * source + t - target)^2); a constant source gets s = 0.

    Args:
        source, target: (N,) finite values, N > 0.
    """
    source_mean, target_mean = float(source.mean()), float(target.mean())
    centred = source - source_mean
    variance = float(np.mean(centred**2))
    if variance <= np.finfo(np.float64).eps * max(1.0, source_mean**2):
        return 0.0, target_mean
    scale = float(np.mean(centred * (target - target_mean))) / variance
    return scale, target_mean - scale * source_mean


def align_scale(prediction: FloatArray, depth: FloatArray, apply_to: FloatArray | None = None) -> FloatArray:
    """Depth prediction times median(depth) / median(prediction); NaN if the prediction's median is not positive."""
    values = prediction if apply_to is None else apply_to
    median = float(np.median(prediction))
    if median <= 0:
        return np.full_like(values, np.nan)
    return values * (float(np.median(depth)) / median)


def align_affine(prediction: FloatArray, depth: FloatArray, apply_to: FloatArray | None = None) -> FloatArray:
    """s * prediction + t, fitted to the depth in metres."""
    scale, shift = fit_scale_shift(prediction, depth)
    return scale * (prediction if apply_to is None else apply_to) + shift


def align_affine_inverse(prediction: FloatArray, depth: FloatArray, apply_to: FloatArray | None = None) -> FloatArray:
    """Metres from a predicted inverse depth (disparity): s * prediction + t fitted to 1/depth, floored, inverted."""
    scale, shift = fit_scale_shift(prediction, 1.0 / depth)
    values = prediction if apply_to is None else apply_to
    return 1.0 / np.maximum(scale * values + shift, INVERSE_DEPTH_FLOOR)
