"""Metres for relative models: scale and shift fitted to sparse depth from another sensor.

The fit lives in the model's own quantity, z = scale * v + shift for relative depth and 1/z = scale * v + shift for
relative disparity, and minimises the *relative* error of z, as far and near points count alike then. Wrong points
(another surface, flying pixels, glass) are left out: the best of many two-point fits (RANSAC) chooses the inliers, on
which Huber-weighted least squares settles. One line for the whole image leaves the model's own errors; `localised`
lets it vary over the image (`scale_field`), so that the depth goes through the points.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.metric_scale.field import ScaleField, fit_field
from diffusion_perception_ros.inference.metric_scale.sparse_points import SparsePoints, sparse_points
from diffusion_perception_ros.sample import FloatImage, Prediction, UInt8Image


_MOST_FITTED = 512
"""More points than this are thinned out evenly: one line does not get better, only slower."""
_PAIRS = 64
_INLIER = 0.25
"""Relative error up to which a point supports a fit: that of the field's delta1."""
_FEWEST_INLIERS = 0.2
"""Share of the points that must support the fit."""
_SMALLEST_SPAN = 1.15
"""Far over near (95th over 5th percentile): points on one wall tell scale and shift apart no more."""
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
    """Points (or floor pixels) that were compared."""
    inliers: float
    """Share of them that agree with the fit: within 25 %, or on the plane of the floor."""
    residual: float
    """Median relative error of those."""
    source: str = "sparse_depth"
    """What it was fitted to: `sparse_depth` or `ground_plane`."""
    field: ScaleField | None = None
    """Scale and shift place by place, where points allow; `scale` and `shift` are those of the whole image."""
    lowest: float = 0.0
    """Fitted values of a field are raised to this: half of what the smallest point asks for."""

    def metres(self, relative: FloatImage) -> FloatImage:
        """(H, W) relative values → metres; NaN where they are invalid or the fit leaves no positive depth."""
        if self.field is not None:
            fitted, lowest = self.field.apply(relative), np.float32(self.lowest)
        else:
            fitted = np.multiply(relative, np.float32(self.scale))
            fitted += np.float32(self.shift)
            lowest = np.float32(np.nan)
        inverse = self.quantity == "relative_disparity"
        with np.errstate(invalid="ignore"):
            wrong = fitted <= np.float32(max(self.lowest, _FLOOR if inverse else 0.0))
        if wrong.any():
            fitted[wrong] = lowest
        return cv2.divide(1.0, fitted) if inverse else fitted  # type: ignore[return-value]

    def apply(self, prediction: Prediction) -> Prediction:
        """The prediction with `depth` in metres beside `depth_relative`.

        Raises:
            InputError: the prediction has no relative depth of this scale's quantity.
        """
        if prediction.depth_relative is None or prediction.depth_quantity != self.quantity:
            raise InputError(f"a scale for {self.quantity} does not fit a prediction of {prediction.depth_quantity}")
        return replace(prediction, depth=self.metres(prediction.depth_relative), depth_quantity="metric_depth")

    def localised(self, relative: FloatImage, points: SparsePoints, rgb: UInt8Image | None = None) -> MetricScale:
        """This scale with a field through the points of the same image.

        Args:
            relative: (H, W), what the scale is for.
            points: Measured on that image.
            rgb: (H, W, 3), the image, whose edges the field keeps; without it those of the prediction only.
        """
        inverse = self.quantity == "relative_disparity"
        targets = np.divide(1, points.metres, dtype=np.float32) if inverse else points.metres
        field = fit_field(relative, points, targets, self.scale, self.shift, rgb)
        return replace(self, field=field, lowest=0.5 * float(targets.min()))


def scale_by_sparse_depth(prediction: Prediction, sparse: FloatImage, rgb: UInt8Image | None = None) -> Prediction:
    """The prediction in metres: one line fitted to sparse depth, then localised.

    Depth that claims to be metric is fitted like relative depth.

    Args:
        prediction: (H, W) depth or relative depth.
        sparse: (h, w) metres along the optical axis; NaN, 0 or +Inf where nothing was measured.
        rgb: (H, W, 3), the image.

    Raises:
        InputError: as `sparse_points` and `fit_scale`.
    """
    if prediction.depth is not None:
        prediction = replace(prediction, depth_relative=prediction.depth, depth_quantity="relative_depth")
    relative = relative_depth(prediction)
    points = sparse_points(relative, sparse)
    return fit_scale(prediction, points).localised(relative, points, rgb).apply(prediction)


def relative_depth(prediction: Prediction) -> FloatImage:
    """(H, W), what a scale is fitted to.

    Raises:
        InputError: the prediction has none.
    """
    if prediction.depth_relative is None or prediction.depth_quantity is None:
        raise InputError("there is no relative depth to scale")
    return prediction.depth_relative


def fit_scale(prediction: Prediction, points: SparsePoints, known_shift: float | None = None) -> MetricScale:
    """One line from a prediction to measured depth.

    Args:
        prediction: With `depth_relative`.
        points: On it.
        known_shift: Of an earlier image. Points on one wall cannot tell the scale from the shift: with a shift
            from before, only the scale is fitted to them, without, they are refused.

    Raises:
        InputError: no relative depth, points that span too little depth, or a fit that most points contradict.
    """
    relative_depth(prediction)
    step = max(1, len(points) // _MOST_FITTED)
    values, metres = points.values[::step].astype(np.float64), points.metres[::step].astype(np.float64)
    # Both quantities become one problem: find (scale, shift) with (v * scale + shift) * weight = 1.
    weight = metres if prediction.depth_quantity == "relative_disparity" else 1.0 / metres
    ordered = np.sort(metres)
    near, far = ordered[len(metres) // 20], ordered[-1 - len(metres) // 20]  # 5 % are nearer, 5 % farther
    if far >= near * _SMALLEST_SPAN:
        scale, shift, inliers = _robust_line(values, weight)
    elif known_shift is not None:
        scale, shift, inliers = _scale_only(values, weight, known_shift)
    else:
        raise InputError(
            f"sparse depth only spans {near:.2f} to {far:.2f} m: too little to tell the scale from the shift"
        )
    errors = np.abs((values * scale + shift) * weight - 1.0)[inliers]
    share = float(np.mean(inliers))
    if share < _FEWEST_INLIERS:
        raise InputError(
            f"only {share:.0%} of the {len(metres)} points of the sparse depth agree with one scale and shift "
            f"({_FEWEST_INLIERS:.0%} are needed): is it registered to the image?"
        )
    quantity = str(prediction.depth_quantity)
    return MetricScale(quantity, scale, shift, len(points), share, float(np.median(errors)))


def _scale_only(values: Vector, weight: Vector, shift: float) -> tuple[float, float, npt.NDArray[np.bool_]]:
    """(scale, shift, inliers) with a given shift: the median of what the points ask for."""
    with np.errstate(divide="ignore", invalid="ignore"):
        scales = (1.0 / weight - shift) / values
    usable = np.isfinite(scales) & (scales > 0)
    if not usable.any():
        return 0.0, shift, usable
    scale = float(np.median(scales[usable]))
    return scale, shift, np.abs((values * scale + shift) * weight - 1.0) < _INLIER


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
    # (pairs, N); single precision is plenty to choose a start, and half the work
    errors = np.outer(scales.astype(np.float32), values.astype(np.float32))
    errors += shifts[:, None].astype(np.float32)
    errors *= weight.astype(np.float32)
    np.abs(np.subtract(errors, np.float32(1), out=errors), out=errors)
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
    # the normal equations of two unknowns, about the weighted mean, are as good as any solver and faster
    importance = huber * weight * weight
    total = float(importance.sum())
    mean_value, mean_target = float(importance @ values) / total, float(importance @ (1 / weight)) / total
    centred = values - mean_value
    variance = float(importance @ (centred * centred))
    if variance <= 0:
        return scale, mean_target - scale * mean_value
    slope = float(importance @ (centred * (1 / weight - mean_target))) / variance
    return slope, mean_target - slope * mean_value
