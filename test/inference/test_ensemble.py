"""Merging predictions, against diffusers' `ensemble_depth` and `ensemble_normals`."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from diffusers import MarigoldDepthPipeline, MarigoldNormalsPipeline
from diffusers.pipelines.marigold import pipeline_marigold_depth
from double_precision import DoublePrecision

from diffusion_perception_ros.inference.sampling.ensemble import ALIGNMENT_SIDE, ensemble_depth, ensemble_normals


def depth_members(count: int, height: int, width: int, noise: float = 0.02) -> np.ndarray:
    """(count, height, width) in [0, 1]: one smooth map, each time in another scale and shift and with other errors."""
    generator = np.random.default_rng(count)
    base = cv2.GaussianBlur(generator.random((height, width)), (0, 0), 8)
    base = (base - base.min()) / np.ptp(base)
    members = []
    for _ in range(count):
        errors = cv2.GaussianBlur(generator.standard_normal((height, width)), (0, 0), 3)
        scale, shift = generator.uniform(0.5, 0.8), generator.uniform(0.05, 0.15)
        members.append(np.clip((base + 5 * noise * errors) * scale + shift, 0, 1))
    return np.stack(members).astype(np.float32)


def theirs(members: np.ndarray, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    depth, spread = MarigoldDepthPipeline.ensemble_depth(
        torch.from_numpy(members.astype(np.float32))[:, None], output_uncertainty=True, **options
    )
    return depth[0, 0].numpy(), spread[0, 0].numpy()


@pytest.mark.parametrize("count", [2, 3, 5, 10])
@pytest.mark.parametrize("size", [(48, 64), (61, 47)])
def test_depth_is_merged_as_diffusers_does_in_double_precision(
    monkeypatch: pytest.MonkeyPatch, count: int, size: tuple[int, int]
) -> None:
    """In single precision its alignment follows rounding (see `ensemble_depth`), so that there is nothing to match."""
    members = depth_members(count, *size)
    merged, spread = ensemble_depth(members)
    monkeypatch.setattr(pipeline_marigold_depth, "torch", DoublePrecision())
    expected, expected_spread = theirs(members)
    np.testing.assert_allclose(merged, expected, atol=1e-4)
    np.testing.assert_allclose(spread, expected_spread, atol=1e-4)


@pytest.mark.parametrize("count", [2, 5])
def test_depth_is_close_to_diffusers_in_single_precision(count: int) -> None:
    members = depth_members(count, 48, 64)
    merged, _ = ensemble_depth(members)
    assert np.abs(merged - theirs(members)[0]).max() < 0.03


def test_copies_in_other_scales_and_shifts_are_one_map() -> None:
    base = depth_members(1, 40, 50)[0]
    members = np.stack([base, 0.5 * base + 0.2, 0.1 * base]).astype(np.float32)
    merged, spread = ensemble_depth(members)
    np.testing.assert_allclose(merged, (base - base.min()) / np.ptp(base), atol=1e-4)
    assert spread.max() < 1e-4
    np.testing.assert_allclose(merged, theirs(members)[0], atol=1e-4)


def test_large_maps_are_aligned_on_fewer_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    members = depth_members(2, 240, 420)
    merged, _ = ensemble_depth(members)
    monkeypatch.setattr(pipeline_marigold_depth, "torch", DoublePrecision())
    np.testing.assert_allclose(merged, theirs(members, max_res=ALIGNMENT_SIDE)[0], atol=1e-4)


def test_spread_is_where_members_disagree() -> None:
    members = np.stack([depth_members(1, 40, 60)[0]] * 5)
    members[:, :, 40:] += 0.1 * np.random.default_rng(0).standard_normal((5, 40, 20), dtype=np.float32)
    _, spread = ensemble_depth(np.clip(members, 0, 1))
    assert np.median(spread[:, 40:]) > 2 * np.median(spread[:, :40])


def test_constant_maps_do_not_fail() -> None:
    merged, spread = ensemble_depth(np.full((3, 10, 12), 0.5, np.float32))
    assert np.isfinite(merged).all()
    assert np.isfinite(spread).all()


@pytest.mark.parametrize("count", [2, 3, 10])
def test_normals_are_merged_as_diffusers_does(count: int) -> None:
    generator = np.random.default_rng(0)
    normals = np.array([0.1, 0.3, -1.0])[:, None, None] + 0.3 * generator.standard_normal((count, 3, 20, 30))
    normals = (normals / np.linalg.norm(normals, axis=1, keepdims=True)).astype(np.float32)
    merged, angle = ensemble_normals(3 * normals)  # the length does not matter
    expected, uncertainty = MarigoldNormalsPipeline.ensemble_normals(torch.from_numpy(normals), True)
    if count == 2:  # both are equally near to their mean: which one it is, is rounding
        assert np.isclose(merged, normals, atol=1e-5).all(axis=1).any(axis=0).all()
    else:
        np.testing.assert_allclose(merged, expected[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(angle / np.pi, uncertainty[0, 0].numpy(), atol=1e-4)
