"""Large pictures in tiles: coverage, seams, and that what cannot be blended is left alone."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_factory import write_model
from sampled_model_factory import write_prompted_model

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.inference.tiling import Tile, align_depth, predict_tiled, windows
from diffusion_perception_ros.sample import Intrinsics, Prediction


def load(folder: Path, tile: str, **options: Any) -> Estimator:
    return Estimator.load(write_model(folder / "tiny", **options), backend="cpu", threads=1, tile=Tile.parse(tile))


@pytest.mark.parametrize(
    ("text", "expected"), [("768/96", Tile(768, 96)), ("512", Tile(512, 64)), (" 64/32 ", Tile(64, 32))]
)
def test_tile_option(text: str, expected: Tile) -> None:
    assert Tile.parse(text) == expected


@pytest.mark.parametrize("text", ["", "a/b", "768x96", "-5/2", "768/"])
def test_what_is_no_tile_option(text: str) -> None:
    with pytest.raises(InputError, match="SIZE/OVERLAP in pixels"):
        Tile.parse(text)


@pytest.mark.parametrize(("size", "overlap"), [(32, 8), (256, 0), (256, 129)])
def test_impossible_tiles(size: int, overlap: int) -> None:
    with pytest.raises(InputError, match=f"got {size}/{overlap}"):
        Tile(size, overlap)


@pytest.mark.parametrize(("width", "height"), [(640, 480), (257, 256), (4000, 90), (256, 1000), (100, 50)])
def test_windows_cover_the_picture_and_overlap(width: int, height: int) -> None:
    tile = Tile(256, 32)
    count = np.zeros((height, width), int)
    parts = windows(tile, width, height)
    for window in parts:
        assert (window.width, window.height) == (min(256, width), min(256, height))
        count[window.slices] += 1
    assert count.min() >= 1
    lefts = sorted({window.left for window in parts})
    assert all(right - left <= 256 - 32 for left, right in pairwise(lefts))
    assert max(lefts) + min(256, width) == width


def test_depth_of_tiles_is_brought_to_the_whole_pictures(tmp_path: Path) -> None:
    """The graph's depth is the row of *its* picture: 0 to 1 in every tile, which only alignment makes one ramp."""
    rgb = np.random.default_rng(0).integers(0, 255, (600, 400, 3), dtype=np.uint8)
    estimator = load(tmp_path, "256/64", tasks=["depth", "normals"])
    depth = estimator.predict(rgb).depth_relative
    rows = (np.arange(600) + 0.5) / 600
    np.testing.assert_allclose(depth[10:-10], np.broadcast_to(rows[10:-10, None], (580, 400)), atol=3e-3)
    steps = np.diff(depth, axis=0)
    assert np.abs(steps - 1 / 600).max() < 2e-3  # no seam
    assert np.abs(np.diff(depth, axis=1)).max() < 1e-3


def test_tiles_see_details_that_the_whole_picture_loses(tmp_path: Path) -> None:
    """Stripes of two pixels are below the resolution of the graph for the whole picture, not for a tile."""
    rgb = np.zeros((512, 512, 3), np.uint8)
    rgb[:, ::4], rgb[:, 1::4] = 255, 255
    options: dict[str, Any] = {"depth": "brightness", "tasks": ["depth"]}
    whole = load(tmp_path / "a", "1024/64", **options).predict(rgb).confidence
    tiled = load(tmp_path / "b", "128/32", **options).predict(rgb).confidence
    assert np.ptp(whole[200:300, 200:300]) < 0.1
    assert np.ptp(tiled[200:300, 200:300]) > 0.9


def test_other_maps_agree_with_the_whole_picture(tmp_path: Path) -> None:
    """Constant surfaces are the same in every tile; normals stay of unit length, classes keep their ids."""
    rgb = np.zeros((300, 500, 3), np.uint8)
    rgb[:, 250:] = (0, 0, 255)
    estimator = load(tmp_path, "128/32")
    tiled = estimator.predict(rgb, Intrinsics(500, 300, 400.0, 400.0, 249.5, 149.5))
    whole = estimator.predict(rgb, tile=Tile(1024, 64))
    np.testing.assert_allclose(tiled.normals, whole.normals, atol=1e-5)
    assert np.mean(tiled.semantic == whole.semantic) > 0.98
    assert set(np.unique(tiled.semantic)) == {0, 7}
    np.testing.assert_array_equal(tiled.instances, whole.instances)
    for name, values in vars(whole).items():
        other = getattr(tiled, name)
        if isinstance(values, np.ndarray):
            assert (other.shape, other.dtype) == (values.shape, values.dtype), name
    assert tiled.timings["inference"] > whole.timings["inference"]


def test_canonical_depth_has_the_focal_length_of_its_tile(tmp_path: Path) -> None:
    """A tile is enlarged more than the whole picture, and so is its focal length."""
    card = {"quantity": "metric_depth", "unit": "m", "focal_scale": 0.01, "range": [0.0, 10.0]}
    estimator = load(tmp_path, "128/32", tasks=["depth"], depth="brightness", depth_card=card)
    rgb = np.full((256, 256, 3), 102, np.uint8)
    depth = estimator.predict(rgb, Intrinsics(256, 256, 300.0, 300.0, 127.5, 127.5)).depth
    np.testing.assert_allclose(depth, 0.4 * 0.01 * 300, atol=1e-4)


def test_holes_are_filled_by_the_other_tiles_only() -> None:
    rgb = np.zeros((64, 200, 3), np.uint8)
    whole = Prediction(depth=np.zeros((64, 200), np.float32))

    def predict(window: Any) -> Prediction:
        depth = np.full((window.height, window.width), 2.0, np.float32)
        if window.left == 0:
            depth[:, -8:] = np.nan  # in the overlap with the next tile
            depth[:, :8] = np.inf
        return Prediction(depth=depth)

    depth = predict_tiled(rgb, Tile(100, 20), whole, predict).depth
    assert np.isposinf(depth[:, :8]).all()
    np.testing.assert_allclose(depth[:, 8:], 2.0, atol=1e-5)


def test_alignment_never_turns_a_tile_over() -> None:
    ramp = np.linspace(0, 1, 50, dtype=np.float32)[None].repeat(4, axis=0)
    np.testing.assert_allclose(align_depth(ramp, 0.5 * ramp + 0.2), 0.5 * ramp + 0.2, atol=1e-6)
    np.testing.assert_allclose(align_depth(1 - ramp, ramp), 0.5, atol=1e-6)
    np.testing.assert_allclose(align_depth(np.full_like(ramp, 0.7), ramp), 0.5, atol=1e-6)
    hole = np.where(ramp < 0.5, ramp, np.nan)
    np.testing.assert_allclose(align_depth(2 * ramp, hole), ramp, atol=1e-5)
    np.testing.assert_array_equal(align_depth(ramp, np.full_like(ramp, np.nan)), ramp)


def test_drawings_and_flow_in_tiles(tmp_path: Path) -> None:
    folder = write_prompted_model(tmp_path / "tiny", ["flow", "albedo", "keypoints"], prompts=["second_image"])
    estimator = Estimator.load(folder, "cpu", threads=1, tile=Tile(128, 32))
    dark, bright = (np.full((200, 300, 3), value, np.uint8) for value in (51, 102))
    assert estimator.predict(dark).flow is None
    prediction = estimator.predict(bright)
    np.testing.assert_allclose(prediction.flow[..., 0], -2.0, atol=1e-3)  # a tile has the size of the graph's input
    np.testing.assert_allclose(prediction.albedo, 0.4, atol=1e-5)
    assert prediction.keypoints.shape == (0, 3)
