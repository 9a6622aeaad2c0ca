"""Relative depth becomes metres by sparse depth: exact, robust, and refused where it would be a guess."""

from __future__ import annotations

import numpy as np
import pytest

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.metric_scale.scale import MetricScale, fit_scale, scale_by_sparse_depth
from diffusion_perception_ros.inference.metric_scale.sparse_points import sparse_points
from diffusion_perception_ros.inference.metric_scale.tracking import ScaleTracker
from diffusion_perception_ros.sample import FloatImage, Prediction


HEIGHT, WIDTH = 120, 160


def scene(seed: int = 0) -> FloatImage:
    """Metres: a slanted floor with boxes on it."""
    rng = np.random.default_rng(seed)
    depth = np.linspace(5.0, 1.0, HEIGHT, dtype=np.float32)[:, None].repeat(WIDTH, axis=1)
    for _ in range(6):
        top, left = rng.integers(0, HEIGHT - 30), rng.integers(0, WIDTH - 30)
        depth[top : top + 30, left : left + 30] = rng.uniform(1.0, 4.0)
    return depth


def predicted(depth: FloatImage, quantity: str) -> Prediction:
    relative = (depth - 0.4) / 8 if quantity == "relative_depth" else (1 / depth + 0.2) / 3
    return Prediction(depth_relative=relative.astype(np.float32), depth_quantity=quantity)


def given(depth: FloatImage, share: float, seed: int = 1) -> FloatImage:
    keep = np.random.default_rng(seed).random(depth.shape) < share
    return np.where(keep, depth, np.float32(np.nan))


def fitted(prediction: Prediction, sparse: FloatImage) -> MetricScale:
    assert prediction.depth_relative is not None
    return fit_scale(prediction, sparse_points(prediction.depth_relative, sparse))


@pytest.mark.parametrize("quantity", ["relative_depth", "relative_disparity"])
def test_scale_and_shift_are_recovered_in_the_models_quantity(quantity: str) -> None:
    depth = scene()
    prediction = predicted(depth, quantity)
    scale = fitted(prediction, given(depth, 0.01))
    metric = scale.apply(prediction)
    assert metric.depth is not None
    np.testing.assert_allclose(metric.depth, depth, rtol=1e-4)
    assert metric.depth_quantity == "metric_depth"
    assert metric.depth_relative is prediction.depth_relative
    assert scale.inliers == 1.0
    assert scale.residual < 1e-5


@pytest.mark.parametrize("quantity", ["relative_depth", "relative_disparity"])
def test_a_third_of_wrong_points_does_not_move_the_fit(quantity: str) -> None:
    depth = scene()
    sparse = given(depth, 0.03)
    rng = np.random.default_rng(5)
    wrong = np.isfinite(sparse) & (rng.random(depth.shape) < 0.33)
    sparse[wrong] *= rng.uniform(1.5, 4.0, np.count_nonzero(wrong)).astype(np.float32)
    scale = fitted(predicted(depth, quantity), sparse)
    assert np.median(np.abs(scale.metres(predicted(depth, quantity).depth_relative) / depth - 1)) < 0.01  # type: ignore[arg-type]
    assert 0.6 < scale.inliers < 0.75


def test_sparse_depth_may_have_another_resolution() -> None:
    depth = np.linspace(1, 4, WIDTH, dtype=np.float32)[None, :].repeat(HEIGHT, axis=0)
    half = depth.reshape(HEIGHT // 2, 2, WIDTH // 2, 2).mean(axis=(1, 3))
    scale = fitted(predicted(depth, "relative_depth"), half)
    metric = scale.apply(predicted(depth, "relative_depth")).depth
    assert metric is not None
    np.testing.assert_allclose(metric, depth, rtol=0.02)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda depth: np.full_like(depth, np.nan), "0 points"),
        (lambda depth: np.where(np.arange(depth.size).reshape(depth.shape) < 7, depth, np.nan), "7 points"),
        (lambda depth: depth * 1000, "millimetres"),
        (lambda depth: depth / 1000, "in metres"),
        (lambda depth: np.full_like(depth, 2.0), "too little to tell"),
        (lambda depth: depth[:, ::-1][::-1], "registered"),
        (lambda depth: np.ones((100, 400), np.float32), "aspect ratio"),
    ],
)
def test_what_would_be_a_guess_is_refused_with_the_reason(spoil, message: str) -> None:  # type: ignore[no-untyped-def]
    depth = np.linspace(5.0, 1.0, HEIGHT, dtype=np.float32)[:, None].repeat(WIDTH, axis=1)
    with pytest.raises(InputError, match=message):
        scale_by_sparse_depth(predicted(depth, "relative_depth"), spoil(depth))


def test_values_without_positive_depth_become_nan() -> None:
    scale = MetricScale("relative_depth", 2.0, -0.5, 100, 1.0, 0.0)
    metres = scale.metres(np.array([[0.1, 0.25, 0.5, np.nan]], np.float32))
    np.testing.assert_array_equal(np.isnan(metres), [[True, True, False, True]])
    with pytest.raises(InputError, match="relative_disparity"):
        scale.apply(Prediction(depth_relative=np.ones((2, 2), np.float32), depth_quantity="relative_disparity"))


def test_the_tracker_smooths_ages_and_starts_anew() -> None:
    first, second = (MetricScale("relative_depth", value, 0.0, 100, 1.0, 0.0) for value in (1.0, 2.0))
    tracker = ScaleTracker(time_constant=1.0, max_age=2.0)
    assert tracker.at(0.0) is None
    tracker.update(first, 10.0)
    tracker.update(second, 11.0)
    smoothed = tracker.at(11.5)
    assert smoothed is not None
    assert smoothed.scale == pytest.approx(1 + (1 - np.exp(-1)))
    assert tracker.age(11.5) == pytest.approx(0.5)
    assert tracker.at(13.5) is None  # nothing for too long
    tracker.update(first, 3.0)  # the bag began again
    restarted = tracker.at(3.0)
    assert restarted is not None
    assert restarted.scale == 1.0


def test_between_measurements_the_field_fades_into_the_whole_pictures_scale() -> None:
    depth = scene()
    prediction = predicted(depth, "relative_depth")
    assert prediction.depth_relative is not None
    relative = prediction.depth_relative * np.linspace(1, 1.2, WIDTH, dtype=np.float32)  # an error of the model
    points = sparse_points(relative, given(depth, 0.05))
    local = fit_scale(Prediction(depth_relative=relative, depth_quantity="relative_depth"), points).localised(
        relative, points
    )
    tracker = ScaleTracker(time_constant=1.0, max_age=10.0)
    tracker.update(local, 0.0)
    errors = []
    for stamp in (0.0, 0.5, 2.0, 5.0):
        scale = tracker.at(stamp)
        assert scale is not None
        errors.append(float(np.mean(np.abs(scale.metres(relative) / depth - 1))))
    assert errors == sorted(errors)
    plain = tracker.at(5.0)
    assert plain is not None
    assert plain.field is None


def test_a_wall_that_fills_the_view_scales_by_the_last_shift_or_is_refused() -> None:
    depth = np.full((HEIGHT, WIDTH), 2.0, np.float32)
    prediction = predicted(depth, "relative_depth")
    assert prediction.depth_relative is not None
    points = sparse_points(prediction.depth_relative, given(depth, 0.05))
    with pytest.raises(InputError, match="too little to tell"):
        fit_scale(prediction, points)
    scale = fit_scale(prediction, points, known_shift=0.4)
    assert scale.scale == pytest.approx(8.0, rel=1e-4)
    assert scale.shift == 0.4
