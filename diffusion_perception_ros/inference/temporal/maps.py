"""The maps of a prediction, each blended with its own past: depth, normals and classes.

Only the *correction* that the past makes is computed, at reduced resolution, and added to the map in full resolution:
the map keeps its edges, and nothing of it is ever resampled.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.inference.temporal.motion import Motion
from diffusion_perception_ros.sample import FloatImage, UInt8Image, UInt16Image


DEPTH_TOLERANCE = 0.15
"""Relative difference of depth from frame to frame up to which it is flicker; beyond, it is another surface."""
NORMAL_TOLERANCE = 0.5
"""Length of the difference of two normals up to which it is flicker (29 degrees)."""
CLASS_MARGIN = 0.5
"""A new class replaces the old one once the old one's faded probability is below this share of its own."""
LEAST_TRUST = 0.7
"""Below this, a pixel's past counts neither for its class nor for scale and shift: it may be another surface."""
_LEAST_SHARE = 0.2
"""Of the median depth; nearer, differences are not judged relative to the depth itself: 0 may be anything there."""
_FLAT = 0.01
"""Spread of depth, as a share of its mean, below which one surface fills the view and does not tell the scale."""
_FEWEST = 100
_SAMPLED = np.s_[::4, ::4]

Size = tuple[int, int]
Labels = UInt8Image | UInt16Image
Vector = npt.NDArray[np.float64]


class SteadyDepth:
    """Depth whose scale and shift hold still, too.

    The present is first brought onto the past by one scale (and shift, unless it is in metres), found robustly over
    the trusted pixels; the local blend happens there. How the present's own scale and shift differ from the past's is
    then let in slowly, with the time constant of the drift, so that the video always returns to what the model says.
    The part of that difference which is explained by the image's expansion, the camera moving ahead, is let in at
    once.
    """

    def __init__(self) -> None:
        self._past: FloatImage | None = None

    def filter(
        self,
        depth: FloatImage,
        size: Size,
        motion: Motion | None,
        keep: float,
        keep_drift: float,
        is_metric: bool = False,
    ) -> FloatImage:
        """Takes a frame in and gives it back steadied.

        Args:
            depth: (H, W); NaN and Inf stay as they are.
            size: Width and height of the reduced maps.
            motion: At that size; None starts anew.
            keep: Share of the past in the blend.
            keep_drift: Share of the difference of scale and shift that is kept out.
            is_metric: In metres, without a shift; otherwise in [0, 1].
        """
        present = shrink(depth, size)
        past = None if motion is None or self._past is None else motion.carry(self._past)
        if motion is None or past is None:
            self._past = present
            return depth
        scale, shift = _gauge(present, past, motion.trust, is_metric)
        past = (past - np.float32(shift)) / np.float32(scale)
        least = _LEAST_SHARE * _median(present)
        with np.errstate(invalid="ignore"):
            difference = past - present
            tolerance = np.maximum(present, np.float32(least)) * np.float32(DEPTH_TOLERANCE)
            weight = motion.trust * np.maximum(0.0, 1.0 - 0.5 * np.square(difference / tolerance))
            correction = np.float32(keep) * weight * difference
        correction[~np.isfinite(correction)] = 0.0
        scale = 1.0 + keep_drift * (scale / motion.expansion - 1.0)
        shift *= keep_drift
        self._past = _regauged(present, correction, scale, shift, is_metric)
        return _regauged(depth, _enlarged(correction, depth.shape), scale, shift, is_metric)


def _gauge(present: FloatImage, past: FloatImage, trust: FloatImage, is_metric: bool) -> tuple[float, float]:
    """Scale and shift that bring the present onto the past; (1, 0) where too little tells."""
    x, y, weight = (image[_SAMPLED].ravel().astype(np.float64) for image in (present, past, trust))
    usable = np.isfinite(x) & np.isfinite(y) & (weight > LEAST_TRUST) & (x > 0) & (y > 0)
    if np.count_nonzero(usable) < _FEWEST:
        return 1.0, 0.0
    x, y = x[usable], y[usable]
    if is_metric:
        return float(np.median(y / x)), 0.0
    return robust_line(x, y, weight[usable])


def _regauged(depth: FloatImage, correction: FloatImage, scale: float, shift: float, is_metric: bool) -> FloatImage:
    moved = np.asarray(cv2.addWeighted(depth, scale, correction, scale, shift), np.float32)
    return moved if is_metric else np.clip(moved, 0.0, 1.0, out=moved)


def _median(depth: FloatImage) -> float:
    """Of some finite pixels; 1 if there are none."""
    values = depth[_SAMPLED]
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else 1.0


def robust_line(x: Vector, y: Vector, weight: Vector) -> tuple[float, float]:
    """Scale and shift of y = scale x + shift by reweighted least squares of relative errors (Cauchy's weights)."""
    relative = 1.0 / np.maximum(y, _LEAST_SHARE * float(np.median(y)))
    scale, shift = float(np.median(y / x)), 0.0
    for _ in range(3):
        errors = np.abs(scale * x + shift - y) * relative
        width = max(3.0 * float(np.median(errors)), 1e-4)
        share = weight * np.square(relative) / (1.0 + np.square(errors / width))
        share /= share.sum()
        mean_x, mean_y = float(share @ x), float(share @ y)
        variance = float(share @ np.square(x - mean_x))
        if variance < np.square(_FLAT * mean_x):
            return mean_y / mean_x, 0.0
        scale = float(share @ ((x - mean_x) * (y - mean_y))) / variance
        shift = mean_y - scale * mean_x
    return (scale, shift) if 0.5 < scale < 2.0 else (float(np.median(y / x)), 0.0)


class SteadyNormals:
    """Normals; the past ones are first turned along with the camera."""

    def __init__(self) -> None:
        self._past: FloatImage | None = None

    def filter(self, normals: FloatImage, size: Size, motion: Motion | None, keep: float) -> FloatImage:
        """Takes (H, W, 3) unit vectors in and gives them back steadied, of unit length; NaN stays NaN."""
        present = shrink(normals, size)
        past = None if motion is None or self._past is None else motion.carry(self._past)
        if motion is None or past is None:
            self._past = present
            return normals
        past = cv2.transform(past, _rotation(past, present, motion.trust))
        difference = past - present
        apart = _squared(difference)
        weight = motion.trust * np.maximum(0.0, 1.0 - apart * np.float32(0.5 / NORMAL_TOLERANCE**2))
        correction = difference * (np.float32(keep) * weight)[..., None]
        correction[~np.isfinite(apart)] = 0.0
        self._past = _sum_of_unit_length(present, correction)
        return _sum_of_unit_length(normals, _enlarged(correction, normals.shape))


def _rotation(past: FloatImage, present: FloatImage, trust: FloatImage) -> npt.NDArray[np.float32]:
    """(3, 3) that turns the past normals onto the present ones (Kabsch, Acta Cryst. 1976)."""
    before, now, weight = (image[_SAMPLED].reshape(-1, image[0, 0].size) for image in (past, present, trust))
    usable = np.isfinite(before).all(axis=1) & np.isfinite(now).all(axis=1)
    if np.count_nonzero(usable) < _FEWEST:
        return np.eye(3, dtype=np.float32)
    covariance = (now[usable] * weight[usable]).T.astype(np.float64) @ before[usable]
    left, _, right = np.linalg.svd(covariance)
    sign = np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    return np.asarray(left @ sign @ right, np.float32)


def _squared(vectors: FloatImage) -> FloatImage:
    """(h, w) squared lengths; plane by plane, which is several times faster than over the last axis."""
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    return np.asarray(x * x + y * y + z * z, np.float32)


def _sum_of_unit_length(vectors: FloatImage, correction: FloatImage) -> FloatImage:
    """(h, w, 3) vectors + correction, normalised, plane by plane."""
    planes = [cv2.add(*pair) for pair in zip(cv2.split(vectors), cv2.split(correction), strict=True)]
    squared = planes[0] * planes[0] + planes[1] * planes[1] + planes[2] * planes[2]
    factor = 1.0 / np.sqrt(np.maximum(squared, np.float32(1e-12)))
    return np.asarray(cv2.merge([plane * factor for plane in planes]), np.float32)


class SteadyClasses:
    """Classes with hysteresis: a pixel keeps its class until another one is clearly likelier for long enough.

    Each pixel carries the smoothed probability of its class. In a frame that sees another class there, that
    probability fades with the time constant; the class changes once it is below `CLASS_MARGIN` times the newcomer's.
    """

    def __init__(self) -> None:
        self._labels: Labels | None = None
        self._probability: FloatImage | None = None

    def filter(
        self, labels: Labels, probability: FloatImage | None, size: Size, motion: Motion | None, keep: float
    ) -> tuple[Labels, FloatImage | None]:
        """Takes (H, W) ids and their probabilities (None: all equally sure) in and gives them back steadied."""
        present = _nearest(labels, size)
        sure = np.ones(present.shape, np.float32) if probability is None else _nearest(probability, size)
        if motion is None or self._labels is None or self._probability is None:
            self._labels, self._probability = present, sure
            return labels, probability
        past: Any = motion.carry(self._labels, is_smooth=False)
        faded = np.float32(keep) * motion.carry(self._probability, is_smooth=False) * (motion.trust > LEAST_TRUST)
        is_same = past == present
        holds = ~is_same & (faded > CLASS_MARGIN * sure)
        steady = np.where(holds, past, present)
        gain = np.where(motion.trust > LEAST_TRUST, np.float32(1.0 - keep), np.float32(1.0))
        self._labels = steady
        self._probability = np.where(holds, faded, np.where(is_same, faded + gain * sure, sure)).astype(np.float32)
        return self._in_full_size(labels, probability, present)

    def _in_full_size(
        self, labels: Labels, probability: FloatImage | None, present: Labels
    ) -> tuple[Labels, FloatImage | None]:
        """Only pixels of the class that was replaced change, so that borders stay where the model draws them."""
        assert self._labels is not None
        assert self._probability is not None
        size = labels.shape[1], labels.shape[0]
        here, steady = _nearest(present, size), _nearest(self._labels, size)
        changed = (here != steady) & (labels == here)
        if probability is not None:
            probability = np.where(changed, _nearest(self._probability, size), probability)
        return np.where(changed, steady, labels), probability


def shrink(image: FloatImage, size: Size) -> FloatImage:
    """(H, W) or (H, W, C) to a smaller size by area; what is not finite spreads to the pixels it is part of."""
    if (image.shape[1], image.shape[0]) == size:
        return image
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.float32)


def _enlarged(image: FloatImage, shape: tuple[int, ...]) -> FloatImage:
    return np.asarray(cv2.resize(image, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR), np.float32)


def _nearest(image: Any, size: Size) -> Any:
    if (image.shape[1], image.shape[0]) == size:
        return image
    return cv2.resize(image, size, interpolation=cv2.INTER_NEAREST_EXACT)
