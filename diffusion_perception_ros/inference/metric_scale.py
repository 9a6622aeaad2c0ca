"""Metres for relative models: scale and shift fitted to sparse depth from another sensor.

The fit lives in the model's own quantity, z = scale * v + shift for relative depth and 1/z = scale * v + shift for
relative disparity, and minimises the *relative* error of z, as far and near points count alike then. Wrong points
(another surface, flying pixels, glass) are left out: the best of many two-point fits (RANSAC) chooses the inliers, on
which Huber-weighted least squares settles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.sample import FloatImage, Prediction


MOST_POINTS = 2000
"""More points than this are thinned out evenly: the fit does not get better, only slower."""
FEWEST_POINTS = 20
_PAIRS = 64
_INLIER = 0.25
"""Relative error up to which a point supports a fit: that of the field's delta1."""
_FEWEST_INLIERS = 0.35
"""Share of the points that must support the fit."""
_SMALLEST_SPAN = 1.15
"""Far over near (95th over 5th percentile): points on one wall tell scale and shift apart no more."""
_LARGEST_DEPTH = 200.0
"""Metres. A median beyond is a sensor in millimetres."""
_FLOOR = 1e-3
"""1/metres, below which a fitted inverse depth has no depth."""

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MetricScale:
    """How a model's relative values become metres."""

    quantity: str
    """`relative_depth` or `relative_disparity`."""
    scale: float
    shift: float
    points: int
    """Points that were compared."""
    inliers: float
    """Share of them that agree with the fit within 25 %."""
    residual: float
    """Median relative error of those."""

    def metres(self, relative: FloatImage) -> FloatImage:
        """(H, W) relative values → metres; NaN where they are invalid or the fit leaves no positive depth."""
        fitted = np.multiply(relative, np.float32(self.scale))
        fitted += np.float32(self.shift)
        with np.errstate(invalid="ignore", divide="ignore"):
            if self.quantity == "relative_disparity":
                return np.where(fitted > _FLOOR, 1.0 / fitted, np.float32(np.nan)).astype(np.float32, copy=False)
            return np.where(fitted > 0, fitted, np.float32(np.nan))

    def apply(self, prediction: Prediction) -> Prediction:
        """The prediction with `depth` in metres beside `depth_relative`.

        Raises:
            InputError: the prediction has no relative depth of this scale's quantity.
        """
        if prediction.depth_relative is None or prediction.depth_quantity != self.quantity:
            raise InputError(f"a scale for {self.quantity} does not fit a prediction of {prediction.depth_quantity}")
        return replace(prediction, depth=self.metres(prediction.depth_relative), depth_quantity="metric_depth")


def scale_by_sparse_depth(prediction: Prediction, sparse: FloatImage) -> Prediction:
    """The prediction in metres by `fit_scale`; depth that claims to be metric is fitted like relative depth.

    Raises:
        InputError: as `fit_scale`.
    """
    if prediction.depth is not None:
        prediction = replace(prediction, depth_relative=prediction.depth, depth_quantity="relative_depth")
    return fit_scale(prediction, sparse).apply(prediction)


def fit_scale(prediction: Prediction, sparse: FloatImage) -> MetricScale:
    """Fits a prediction to measured depth.

    Args:
        prediction: With `depth_relative`.
        sparse: (h, w) metres along the optical axis; NaN, 0 or +Inf where nothing was measured. It shows the same view
            as the prediction and may have another resolution.

    Raises:
        InputError: no relative depth, another view, too few points, millimetres, points that span too little depth
            to tell scale from shift, or a fit that most points contradict.
    """
    if prediction.depth_relative is None or prediction.depth_quantity is None:
        raise InputError("there is no relative depth to scale")
    values, metres = _pairs(prediction.depth_relative, sparse)
    if len(metres) < FEWEST_POINTS:
        raise InputError(f"sparse depth has {len(metres)} points on valid predictions; {FEWEST_POINTS} are needed")
    if np.median(metres) > _LARGEST_DEPTH:
        raise InputError(f"sparse depth has a median of {np.median(metres):.0f} m: is it in millimetres?")
    near, far = np.percentile(metres, (5, 95))
    if far < near * _SMALLEST_SPAN:
        raise InputError(
            f"sparse depth only spans {near:.2f} to {far:.2f} m: too little to tell the scale from the shift"
        )
    # Both quantities become one problem: find (scale, shift) with (v * scale + shift) * weight = 1.
    weight = metres if prediction.depth_quantity == "relative_disparity" else 1.0 / metres
    scale, shift, inliers = _robust_line(values, weight)
    errors = np.abs((values * scale + shift) * weight - 1.0)[inliers]
    share = float(np.mean(inliers))
    if share < _FEWEST_INLIERS:
        raise InputError(
            f"only {share:.0%} of the {len(metres)} points of the sparse depth agree with one scale and shift "
            f"({_FEWEST_INLIERS:.0%} are needed): is it registered to the image?"
        )
    return MetricScale(prediction.depth_quantity, scale, shift, len(metres), share, float(np.median(errors)))


def _pairs(relative: FloatImage, sparse: FloatImage) -> tuple[Vector, Vector]:
    """Predicted values and measured metres at (at most `MOST_POINTS`) measured pixels."""
    height, width = relative.shape
    if abs(sparse.shape[1] * height - sparse.shape[0] * width) > max(sparse.shape) * 0.02 * height:
        raise InputError(
            f"sparse depth of {sparse.shape[1]}x{sparse.shape[0]} pixels has another aspect ratio than the image of "
            f"{width}x{height}"
        )
    measured = np.flatnonzero(np.isfinite(sparse) & (sparse > 0))
    step = max(1, math.ceil(len(measured) / (2 * MOST_POINTS)))
    rows, columns = np.divmod(measured[::step], sparse.shape[1])
    # pixel centres are at integer coordinates, so that the grids match at their outer edges
    rows_here = np.minimum((rows * 2 + 1) * height // (2 * sparse.shape[0]), height - 1)
    columns_here = np.minimum((columns * 2 + 1) * width // (2 * sparse.shape[1]), width - 1)
    values = relative[rows_here, columns_here].astype(np.float64)
    metres = sparse[rows, columns].astype(np.float64)
    valid = np.flatnonzero(np.isfinite(values))
    valid = valid[:: max(1, math.ceil(len(valid) / MOST_POINTS))]
    return values[valid], metres[valid]


def _robust_line(values: Vector, weight: Vector) -> tuple[float, float, npt.NDArray[np.bool_]]:
    """(scale, shift, inliers) of (values * scale + shift) * weight = 1."""
    rng = np.random.default_rng(0)  # the same points give the same scale
    first, second = rng.integers(len(values), size=(2, _PAIRS))
    gap = values[first] - values[second]
    targets = 1.0 / weight
    with np.errstate(divide="ignore", invalid="ignore"):
        scales = (targets[first] - targets[second]) / gap
    shifts = targets[first] - scales * values[first]
    usable = np.isfinite(scales) & (scales > 0)
    # a start for points that no pair explains: everything at one ratio
    scales = np.append(scales[usable], np.median(targets) / max(float(np.median(values)), 1e-9))
    shifts = np.append(shifts[usable], 0.0)
    errors = np.abs((np.outer(scales, values) + shifts[:, None]) * weight - 1.0)
    best = int(np.argmin(np.minimum(errors, _INLIER).mean(axis=1)))
    scale, shift = float(scales[best]), float(shifts[best])
    inliers: npt.NDArray[np.bool_] = errors[best] < _INLIER
    for _ in range(5):
        if np.count_nonzero(inliers) < 3:
            break
        refined = _weighted_line(values[inliers], weight[inliers], scale, shift)
        if refined[0] <= 0:  # far would become near
            break
        scale, shift = refined
        inliers = np.abs((values * scale + shift) * weight - 1.0) < _INLIER
    return scale, shift, inliers


def _weighted_line(values: Vector, weight: Vector, scale: float, shift: float) -> tuple[float, float]:
    """One Huber-weighted least-squares step from (scale, shift)."""
    residuals = np.abs((values * scale + shift) * weight - 1.0)
    threshold = max(1.345 * 1.4826 * float(np.median(residuals)), 1e-6)
    huber = np.minimum(1.0, threshold / np.maximum(residuals, 1e-12))
    root = np.sqrt(huber)
    columns = np.stack([values * weight * root, weight * root], axis=1)
    (scale, shift), *_ = np.linalg.lstsq(columns, root, rcond=None)
    return float(scale), float(shift)


class ScaleTracker:
    """The scale of a video: smoothed over time, and forgotten when its source goes silent."""

    def __init__(self, time_constant: float, max_age: float) -> None:
        """
        Args:
            time_constant: Seconds after which a new scale counts for 63 %; 0 = every fit replaces the last.
            max_age: Seconds for which a fit stays usable without a new one.
        """
        self.time_constant, self.max_age = time_constant, max_age
        self._scale: MetricScale | None = None
        self._stamp = 0.0

    def update(self, scale: MetricScale, stamp: float) -> None:
        """Takes in the fit of a frame; stamps that jump back (a bag loops) start anew."""
        last = self._scale
        elapsed = stamp - self._stamp
        if last is not None and last.quantity == scale.quantity and 0 <= elapsed <= self.max_age:
            gain = 1.0 if self.time_constant <= 0 else 1.0 - math.exp(-elapsed / self.time_constant)
            scale = replace(
                scale,
                scale=last.scale + gain * (scale.scale - last.scale),
                shift=last.shift + gain * (scale.shift - last.shift),
            )
        self._scale, self._stamp = scale, stamp

    def at(self, stamp: float) -> MetricScale | None:
        """The scale for a frame, None if there was none within `max_age` before it."""
        return self._scale if self._scale is not None and 0 <= self.age(stamp) <= self.max_age else None

    def age(self, stamp: float) -> float:
        """Seconds since the last fit; +Inf if there was none."""
        return stamp - self._stamp if self._scale is not None else math.inf
