"""Whether a confidence means something: it ranks the errors, and it is as often right as it says."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.metrics.dense import Scores


FloatArray = npt.NDArray[np.floating]

REMOVED = np.linspace(0.0, 1.0, 50, endpoint=False)
"""Shares of the pixels that are taken away."""
_BINS = 15


def calibration_error(right: npt.NDArray[np.bool_], confidence: FloatArray) -> float:
    """Expected calibration error: how far, on average, confidence is from the share of right pixels among those of
    about the same confidence (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017; 15 bins).

    Args:
        right: whether each pixel is as good as the confidence is a probability of.
        confidence: of the same shape, in [0, 1]; pixels where it is NaN do not count.

    Returns:
        In [0, 1], 0 is perfect; NaN without any pixel.
    """
    known = np.isfinite(confidence)
    if not known.any():
        return math.nan
    bins = np.minimum((confidence[known] * _BINS).astype(int), _BINS - 1)
    total = np.bincount(bins, confidence[known] - right[known], minlength=_BINS)
    return float(np.abs(total).sum() / bins.size)


def sparsification_scores(error: FloatArray, confidence: FloatArray) -> Scores:
    """How well confidence ranks the errors. Only the order of the confidences counts, equal ones are in random order.

    Both curves give the mean error of the pixels that are left, as a share of the mean error of all, while a growing
    share is taken away: the least sure first, or (oracle) those of the largest error first.

    Args:
        error: Of every pixel, at least 0; NaN or infinite where there is no ground truth.
        confidence: Of the same shape, larger = surer.

    Returns:
        `ause`: area between confidence's curve and the oracle's, 0 is perfect (Ilg et al., ECCV 2018).
        `aurg`: area between taking away at random and confidence's curve; above 0 confidence is better than chance
        (Poggi et al., CVPR 2020).
        `correlation`: Spearman's rank correlation of error and lack of confidence.
        All NaN where every confidence or every error is the same.
    """
    known = np.isfinite(error) & np.isfinite(confidence)
    errors, sureness = error[known].astype(np.float64), confidence[known]
    if errors.size < 2 or np.ptp(sureness) == 0 or np.ptp(errors) == 0:
        return dict.fromkeys(("ause", "aurg", "correlation"), math.nan)
    ties = np.random.default_rng(0).permutation(errors.size)
    by_confidence = _remaining_error(errors[np.lexsort((ties, -sureness))])
    oracle = _remaining_error(np.sort(errors))
    from scipy.stats import spearmanr  # takes a second to import: only when it is needed

    return {
        "ause": float(np.mean(by_confidence - oracle)),
        "aurg": float(np.mean(1.0 - by_confidence)),
        "correlation": float(spearmanr(errors, -sureness).statistic),
    }


def _remaining_error(errors: FloatArray) -> FloatArray:
    """Mean error of what is left, as a share of the mean of all, for every share of `REMOVED`; the last go first."""
    left = np.maximum(np.round((1.0 - REMOVED) * errors.size).astype(int), 1)
    means: FloatArray = np.cumsum(errors)[left - 1] / (left * errors.mean())
    return means
