"""Sparse depth is completed along edges: through the points, with the model between them, wrong points left out."""

from __future__ import annotations

import numpy as np
import pytest

from diffusion_perception_ros.inference.metric_scale.scale import scale_by_sparse_depth
from diffusion_perception_ros.inference.point_map import PointMap
from diffusion_perception_ros.sample import FloatImage, Prediction, UInt8Image


HEIGHT, WIDTH = 240, 320


def room(seed: int = 0) -> tuple[FloatImage, UInt8Image]:
    """Metres and colours: a floor that runs away, boxes of their own colours before it."""
    rng = np.random.default_rng(seed)
    depth = 1.0 / np.linspace(1 / 6, 1.0, HEIGHT, dtype=np.float32)[:, None].repeat(WIDTH, axis=1)
    rgb = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    for _ in range(5):
        top, left = rng.integers(0, HEIGHT - 90), rng.integers(0, WIDTH - 90)
        depth[top : top + 80, left : left + 80] = rng.uniform(1.0, 3.0)
        rgb[top : top + 80, left : left + 80] = rng.integers(0, 256, 3)
    return depth, rgb


def weak_model(depth: FloatImage, quantity: str = "relative_depth") -> Prediction:
    """A model that is right about edges and wrong about the distance of everything, smoothly over the picture."""
    rows, columns = np.indices(depth.shape, np.float32)
    wrong = 1 + 0.3 * np.sin(columns / 60) * np.cos(rows / 50)
    values = depth * wrong / 10 if quantity == "relative_depth" else 0.8 / (depth * wrong)
    return Prediction(depth_relative=values.astype(np.float32), depth_quantity=quantity)


def given(depth: FloatImage, share: float, seed: int = 1) -> FloatImage:
    keep = np.random.default_rng(seed).random(depth.shape) < share
    return np.where(keep, depth, np.float32(np.nan))


def error(depth: FloatImage, metres: FloatImage | None) -> float:
    assert metres is not None
    return float(np.mean(np.abs(metres / depth - 1)))


@pytest.mark.parametrize("quantity", ["relative_depth", "relative_disparity"])
@pytest.mark.parametrize("coloured", [True, False])
def test_errors_of_the_model_vanish_where_points_are(quantity: str, coloured: bool) -> None:
    depth, rgb = room()
    prediction = weak_model(depth, quantity)
    errors = [
        error(depth, scale_by_sparse_depth(prediction, given(depth, share), rgb if coloured else None).depth)
        for share in (0.002, 0.01, 0.05)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] < 0.06
    assert errors[2] < 0.015


def test_edges_stay_where_the_model_has_them() -> None:
    depth = np.full((HEIGHT, WIDTH), 1.0, np.float32)
    depth[:, WIDTH // 2 + 3 :] = 3.0  # not on a border of the cells
    metres = scale_by_sparse_depth(weak_model(depth), given(depth, 0.003)).depth
    assert metres is not None
    assert np.mean(np.abs(metres[:, : WIDTH // 2] - 1.0) < 0.15) > 0.95
    assert np.mean(np.abs(metres[:, WIDTH // 2 + 6 :] - 3.0) < 0.45) > 0.95


def test_a_model_that_invents_structure_is_flattened_by_the_points() -> None:
    depth, rgb = room()
    noise = np.random.default_rng(2).normal(0, 1, (HEIGHT // 20, WIDTH // 20)).repeat(20, 0).repeat(20, 1)
    prediction = Prediction(
        depth_relative=(depth * np.exp(0.3 * noise) / 10).astype(np.float32), depth_quantity="relative_depth"
    )
    assert error(depth, scale_by_sparse_depth(prediction, given(depth, 0.05), rgb).depth) < 0.03


def test_the_map_of_nearest_points_needs_no_search() -> None:
    rng = np.random.default_rng(5)
    shape, spacing = (120, 160), 8.0
    rows, columns = (
        rng.integers(0, shape[0], 300),
        rng.integers(0, shape[1] // 2, 300),
    )  # half of the picture is a hole
    nearest = PointMap.of(rows, columns, shape, spacing, reach=5)
    places = np.indices(shape).reshape(2, -1)
    distance = np.hypot(*(places[:, :, None] - np.stack([rows, columns])[:, None]))
    found = np.take_along_axis(distance, nearest.at(*places)[:, None], axis=1)[:, 0]
    near = distance.min(axis=1) < 2 * spacing
    assert np.mean((found - distance.min(axis=1))[near]) < 0.25 * spacing
    assert (found < 1.5 * distance.min(axis=1) + spacing).mean() > 0.99


def test_single_wrong_returns_do_not_show() -> None:
    depth, rgb = room()
    sparse = given(depth, 0.03)
    measured = np.argwhere(np.isfinite(sparse))
    for row, column in measured[:: len(measured) // 20]:
        sparse[row, column] *= 3
    clean = error(depth, scale_by_sparse_depth(weak_model(depth), given(depth, 0.03), rgb).depth)
    assert error(depth, scale_by_sparse_depth(weak_model(depth), sparse, rgb).depth) < clean + 0.01


def test_invalid_predictions_stay_invalid_and_spoil_nothing_else() -> None:
    depth, rgb = room()
    prediction = weak_model(depth)
    assert prediction.depth_relative is not None
    prediction.depth_relative[:30, :40] = np.nan
    metres = scale_by_sparse_depth(prediction, given(depth, 0.02), rgb).depth
    assert metres is not None
    np.testing.assert_array_equal(np.isnan(metres), np.isnan(prediction.depth_relative))
    valid = np.isfinite(metres)
    assert np.mean(np.abs(metres[valid] / depth[valid] - 1)) < 0.03


@pytest.mark.parametrize("size", [(37, 61), (96, 1001), (480, 640), (700, 300)])
def test_pictures_of_any_size(size: tuple[int, int]) -> None:
    depth = np.linspace(1, 4, size[1], dtype=np.float32)[None].repeat(size[0], axis=0)
    rgb = np.full((*size, 3), 90, np.uint8)
    metres = scale_by_sparse_depth(weak_model(depth), given(depth, 0.03), rgb).depth
    assert error(depth, metres) < 0.05
