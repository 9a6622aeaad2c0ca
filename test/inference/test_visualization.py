"""What the colours of pictures mean is a contract: rviz users, reports and papers read them."""

from __future__ import annotations

import numpy as np
import pytest
from model_factory import LABELS

from diffusion_perception_ros.inference import visualization
from diffusion_perception_ros.inference.visualization import INVALID


def brightness(picture: np.ndarray) -> np.ndarray:
    return picture.astype(float) @ (0.2126, 0.7152, 0.0722)


def test_near_is_bright_and_warm() -> None:
    depth = np.linspace(1.0, 5.0, 64, dtype=np.float32)[None].repeat(8, axis=0)
    picture = visualization.colorize_depth(depth, 1.0, 5.0)
    assert picture.shape == (8, 64, 3)
    assert picture.dtype == np.uint8
    assert (np.diff(brightness(picture[0])) < 0).all()
    near = picture[0, 0].astype(int)
    assert near[0] > 200
    assert near[1] > 200
    disparity = visualization.colorize_depth(depth, 1.0, 5.0, near_is_high=True)
    np.testing.assert_allclose(disparity, picture[:, ::-1].astype(float), atol=4)  # one step of the ramp


def test_invalid_is_grey_and_sky_is_far() -> None:
    depth = np.array([[1.0, 2.0, np.nan, np.inf]], np.float32)
    picture = visualization.colorize_depth(depth, 1.0, 2.0)
    assert tuple(picture[0, 2]) == INVALID
    np.testing.assert_array_equal(picture[0, 3], picture[0, 1])


def test_limits_ignore_outliers_and_what_is_not_finite() -> None:
    depth = np.full((300, 300), np.nan, np.float32)
    assert visualization.depth_limits(depth) == (0.0, 1.0)
    depth[:] = np.linspace(2.0, 4.0, 300)
    depth[:, 0], depth[0], depth[:, -1] = 1000.0, np.inf, np.nan
    low, high = visualization.depth_limits(depth)
    assert low == pytest.approx(2.04, abs=0.05)
    assert high == pytest.approx(3.96, abs=0.05)
    constant = visualization.depth_limits(np.full((5, 5), 3.0, np.float32))
    assert constant[0] < constant[1]


@pytest.mark.parametrize(
    ("normal", "color"),
    [
        ((0, 0, -1), (128, 128, 0)),  # a wall that faces the camera
        ((0, -1, 0), (128, 0, 128)),  # a floor
        ((0, 1, 0), (128, 255, 128)),  # a ceiling
        ((1, 0, 0), (255, 128, 128)),  # a wall on the left
        ((np.nan,) * 3, INVALID),
    ],
)
def test_normals(normal: tuple[float, float, float], color: tuple[int, int, int]) -> None:
    picture = visualization.colorize_normals(np.full((4, 5, 3), normal, np.float32))
    np.testing.assert_allclose(picture, np.broadcast_to(np.array(color), (4, 5, 3)), atol=1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_labels_have_their_colours(dtype: type) -> None:
    ids = np.array([[label.id for label in LABELS] + [np.iinfo(dtype).max, 99]], dtype)
    picture = visualization.colorize_labels(ids, LABELS)
    assert [tuple(pixel) for pixel in picture[0]] == [*(label.color for label in LABELS), (0, 0, 0), (0, 0, 0)]


def test_instances_have_colours_of_their_own() -> None:
    ids = np.arange(40, dtype=np.uint16)[None]
    picture = visualization.colorize_instances(ids)[0]
    assert len({tuple(pixel) for pixel in picture}) == 40
    assert tuple(picture[0]) == (0, 0, 0)
    assert (picture[1:].max(axis=1) > 150).all()
    fewer = visualization.colorize_instances(ids[:, :10])[0]
    np.testing.assert_array_equal(fewer, picture[:10])


def test_overlay_leaves_the_picture_where_there_is_nothing() -> None:
    rgb = np.full((4, 4, 3), 100, np.uint8)
    color = np.zeros_like(rgb)
    color[0] = (200, 0, 0)
    picture = visualization.overlay(rgb, color, 0.5)
    np.testing.assert_array_equal(picture[1:], rgb[1:])
    np.testing.assert_array_equal(picture[0, 0], (150, 50, 50))


def test_legend_and_scale_bar_have_the_height_asked_for() -> None:
    for height in (30, 200, 480):
        assert visualization.legend(LABELS, height).shape[0] == height
        assert visualization.scale_bar(0.5, 4.0, "m", height).shape[0] == height
    legend = visualization.legend(LABELS, 200)
    for label in LABELS:
        assert (legend == label.color).all(axis=2).any(), label.name
    assert visualization.legend([], 50).shape == (50, 0, 3)


def test_present_labels_are_sorted_by_area() -> None:
    ids = np.zeros((100, 100), np.uint8)
    ids[:70] = 7
    ids[-1, -1] = 1  # too little to be shown
    assert [label.id for label in visualization.present_labels(ids, LABELS)] == [7, 0]


def test_the_wheel_of_flow_explains_its_colours() -> None:
    wheel = visualization.flow_wheel(65)
    flow = np.array([[[3.0, 0.0], [0.0, 3.0], [0.0, 0.0], [-30.0, 0.0]]], np.float32)
    colors = visualization.colorize_flow(flow, 3.0)[0].astype(int)
    for color, place in zip(colors, ((32, 64), (64, 32), (32, 32), (32, 0)), strict=True):
        np.testing.assert_allclose(wheel[place], color, atol=3)
    assert visualization.full_color_length(flow[:, :2]) == 3.0
    assert visualization.full_color_length(np.full((2, 2, 2), np.nan, np.float32)) == 1.0
