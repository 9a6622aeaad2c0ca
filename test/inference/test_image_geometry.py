"""From an image of any shape to the graph's input and back: the publishers' sizes, filters and rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from model_factory import write_model
from pydantic import ValidationError

from diffusion_perception_ros.inference.card import ImageInput, InputSize
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.inference.preprocess import Preprocessor
from diffusion_perception_ros.inference.resampling import resample


RESIZES = [
    ((640, 480), (768, 576)),
    ((1280, 720), (768, 432)),
    ((387, 513), (579, 768)),
    ((300, 1000), (500, 400)),  # one side grows, the other shrinks
    ((5, 7), (11, 3)),
]


def noise(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def tensor_of(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32))


@pytest.mark.parametrize(("before", "after"), RESIZES)
def test_the_filters_are_torchs(before: tuple[int, int], after: tuple[int, int]) -> None:
    image, (width, height) = noise(*before), after
    smooth = F.interpolate(tensor_of(image), size=(height, width), mode="bilinear", antialias=True)[0]
    np.testing.assert_allclose(
        resample(image, width, height, "bilinear_antialias"), smooth.permute(1, 2, 0).numpy(), atol=2e-4
    )
    nearest = F.interpolate(tensor_of(image), size=(height, width), mode="nearest-exact")[0]
    np.testing.assert_array_equal(resample(image, width, height, "nearest_exact"), nearest.permute(1, 2, 0).numpy())


@pytest.mark.parametrize(
    ("image", "publisher", "graph"),
    [
        ((640, 480), (768, 576), (768, 576)),
        ((1280, 720), (768, 432), (768, 432)),
        ((1920, 1200), (768, 480), (768, 480)),
        ((720, 1280), (432, 768), (432, 768)),
        ((387, 513), (579, 768), (576, 768)),
        ((1242, 375), (768, 231), (768, 224)),
        ((3000, 40), (768, 72), (768, 72)),
    ],
)
def test_the_sizes_are_the_publishers(
    image: tuple[int, int], publisher: tuple[int, int], graph: tuple[int, int]
) -> None:
    """Whole pixels, rounded down; where the noise has to fit, what is left of a cell of the latent is cut off."""
    any_size = InputSize(rule="longest_side", longest_side=768, rounding="down")
    assert any_size.placement(*image) == (publisher, publisher)
    cells = InputSize(rule="longest_side", longest_side=768, rounding="down", multiple_of=8)
    assert cells.placement(*image) == (graph, publisher)


def prepared(image: np.ndarray, **size: Any) -> np.ndarray:
    card = ImageInput(tensor="image", size=InputSize(**size), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    return Preprocessor(card)(image)[0].transpose(1, 2, 0).copy()


@pytest.mark.parametrize("round_pixels", [True, False])
def test_lotus_resizes_floats_and_the_others_bytes(round_pixels: bool) -> None:
    image = noise(97, 61)
    expected = F.interpolate(tensor_of(image), size=(80, 128), mode="bilinear", antialias=True)
    expected = expected.round() if round_pixels else expected
    rule = {"rule": "longest_side", "longest_side": 128, "rounding": "down"}
    actual = prepared(image, **rule, interpolation="bilinear_antialias", round_pixels=round_pixels)
    np.testing.assert_allclose(actual, (expected[0] / 127.5 - 1).permute(1, 2, 0).numpy(), atol=1e-5)


def test_an_image_of_another_aspect_is_padded_with_its_border() -> None:
    image = noise(64, 32)
    actual = prepared(image, rule="fixed", width=64, height=48, fit="pad")
    np.testing.assert_allclose(actual[:32], image / np.float32(127.5) - 1, atol=1e-6)
    np.testing.assert_array_equal(actual[32:], np.repeat(actual[31:32], 16, axis=0))
    portrait = prepared(noise(24, 48), rule="fixed", width=64, height=48, fit="pad")
    np.testing.assert_array_equal(portrait[:, 24:], np.repeat(portrait[:, 23:24], 40, axis=1))


def test_what_the_cells_of_the_latent_do_not_hold_is_cut_off() -> None:
    image = noise(128, 91)
    rule = {"rule": "longest_side", "longest_side": 128, "rounding": "down", "multiple_of": 8}
    np.testing.assert_allclose(prepared(image, **rule), image[:88] / np.float32(127.5) - 1, atol=1e-6)


def test_a_side_that_shrinks_is_averaged_even_where_the_other_grows() -> None:
    """Stripes finer than the new pixels become grey; OpenCV's bilinear filter would pick single stripes."""
    stripes = np.zeros((40, 640, 3), np.uint8)
    stripes[:, ::2] = 255
    actual = prepared(stripes, rule="fixed", width=64, height=64)
    assert np.abs(actual).max() < 0.05
    aliased = cv2.resize(stripes, (63, 64), interpolation=cv2.INTER_LINEAR)
    assert np.ptp(aliased) > 100


@pytest.mark.parametrize("restore", ["linear", "bilinear_antialias", "nearest_exact"])
def test_maps_are_those_of_the_image_and_not_of_the_border(tmp_path: Path, restore: str) -> None:
    """The graph's depth is its row over its height: of 128 rows an image of 2:1 has the upper half."""
    size = {"rule": "fixed", "width": 128, "height": 128, "fit": "pad", "restore": restore}
    model = Estimator.load(write_model(tmp_path / "model", size=size))
    depth = model.predict(noise(200, 100)).depth_relative
    assert depth is not None
    assert depth.shape == (100, 200)
    rows = (np.arange(100) + 0.5) / 200
    np.testing.assert_allclose(depth, np.repeat(rows[:, None], 200, 1), atol=0.01)


def test_normals_of_a_stretched_image_are_those_of_the_image(tmp_path: Path) -> None:
    """A wall seen at 45 degrees, in an image of 2:1 that is squeezed into a square: the network sees half the width.

    For a network that keeps the area the world is 1 / sqrt(2) as wide and sqrt(2) as high: the plane z = x has the
    normal (sqrt(2), 0, -1) there.
    """
    size = {"rule": "fixed", "width": 128, "height": 128}
    seen = (2**0.5, 0.0, 1.0)  # right, up, backward
    model = Estimator.load(write_model(tmp_path / "model", ["normals"], normal=seen, size=size))
    normals = model.predict(noise(256, 128)).normals
    assert normals is not None
    np.testing.assert_allclose(normals[64, 128], np.array([1.0, 0.0, -1.0]) / 2**0.5, atol=1e-5)
    whole = model.predict(noise(128, 128)).normals
    assert whole is not None
    np.testing.assert_allclose(whole[64, 64], np.array([2**0.5, 0.0, -1.0]) / 3**0.5, atol=1e-5)


def test_rules_that_contradict_each_other() -> None:
    with pytest.raises(ValidationError, match="'area' keeps the aspect, it has no use for 'fit: pad'"):
        InputSize(rule="area", area=1000, fit="pad")
    with pytest.raises(ValidationError, match="'fixed' has no use for 'rounding: down'"):
        InputSize(rule="fixed", width=8, height=8, rounding="down")
