"""Batches: order, resumption, sharding over processes, growing data, and augmentation that keeps the truth exact."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_rooms import toy_room, write_toy_shard

from diffusion_perception_ros.datasets.augment import (
    AugmentationConfig,
    crop_sample,
    flip_sample,
    random_colours,
    random_view,
    resize_sample,
)
from diffusion_perception_ros.datasets.mixture import Mixture
from diffusion_perception_ros.datasets.shards import ShardDataset
from diffusion_perception_ros.sample import Sample
from diffusion_perception_ros.training.batch_stream import BatchStream, Position, Prefetcher
from diffusion_perception_ros.training.batches import collate, instance_offsets


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return write_toy_shard(tmp_path, range(20))


def stream(shards: Path, **options: object) -> BatchStream:
    settings = {"batch_size": 4, "sizes": [(64, 64), (96, 32)], "augmentation": AugmentationConfig(), "seed": 3}
    return BatchStream(lambda: Mixture([ShardDataset(shards)]), **{**settings, **options})  # type: ignore[arg-type]


def plane_distances(sample: Sample) -> np.ndarray:
    """n . P in metres for every pixel: the distance of the pixel's plane from the camera, signed."""
    assert sample.depth is not None
    assert sample.normals is not None
    camera = sample.intrinsics
    assert camera is not None
    v, u = np.mgrid[: camera.height, : camera.width]
    rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones_like(u)], -1)
    return (rays * sample.depth[..., None] * sample.normals).sum(-1)


@pytest.mark.parametrize("seed", range(8))
def test_views_keep_depth_normals_and_camera_consistent(seed: int) -> None:
    room = toy_room(seed, 96, 80)
    planes = np.unique(np.round(plane_distances(room), 3))
    assert len(planes) < 30  # a room and two boxes
    config = AugmentationConfig(zoom=(0.4, 1.0), shift=0.3, aspect=0.2)
    view = random_view(room, 128, 64, np.random.default_rng(seed), config)
    assert view.rgb.shape == (64, 128, 3)
    # Every pixel still lies on one of the planes that the room had (mirroring changes n and P, not n . P).
    distances = plane_distances(view).reshape(-1, 1)
    error = (np.abs(distances - planes) / np.abs(planes)).min(1)
    assert np.quantile(error, 0.9) < 0.005


def test_flip_mirrors_normals_and_is_its_own_inverse() -> None:
    room = toy_room(1)
    flipped = flip_sample(room)
    assert flipped.normals is not None
    assert room.normals is not None
    np.testing.assert_array_equal(flipped.normals[:, ::-1] * [-1, 1, 1], room.normals)
    again = flip_sample(flipped)
    np.testing.assert_array_equal(again.rgb, room.rgb)
    np.testing.assert_array_equal(again.depth, room.depth)
    assert again.intrinsics == room.intrinsics


def test_resizing_invents_no_depth_between_surfaces_and_keeps_sky_and_holes() -> None:
    room = toy_room(2)
    assert room.depth is not None
    room.depth[:20] = np.inf
    room.depth[30:34, 10:14] = np.nan
    depth = resize_sample(room, 160, 160).depth
    assert depth is not None
    assert np.isinf(depth[:49]).all()
    assert np.isnan(depth[76:84, 26:34]).all()
    near = np.sort(room.depth[np.isfinite(room.depth)])
    values = depth[np.isfinite(depth)]
    above = np.clip(np.searchsorted(near, values), 1, len(near) - 1)
    jump = np.minimum(np.abs(values / near[above] - 1), np.abs(values / near[above - 1] - 1))
    assert jump.max() < 0.05


def test_crop_keeps_the_rays() -> None:
    room = toy_room(4)
    window = crop_sample(room, 10, 20, 30, 25)
    assert window.intrinsics is not None
    assert room.intrinsics is not None
    assert (7 - window.intrinsics.cx) / window.intrinsics.fx == pytest.approx(
        (17 - room.intrinsics.cx) / room.intrinsics.fx
    )
    np.testing.assert_array_equal(window.depth, room.depth[20:45, 10:40])  # type: ignore[index]


def test_colours_change_the_picture_only_and_follow_the_seed() -> None:
    rgb = toy_room(5).rgb
    before = rgb.copy()
    one, same, other = (random_colours(rgb, np.random.default_rng(s), AugmentationConfig()) for s in (0, 0, 1))
    np.testing.assert_array_equal(rgb, before)
    np.testing.assert_array_equal(one, same)
    assert one.shape == rgb.shape
    assert one.dtype == np.uint8
    assert (one != other).any()


def test_offsets_point_to_the_middle_of_the_object() -> None:
    instances = np.zeros((20, 30), np.uint16)
    instances[4:9, 10:21] = 7  # centre: row 6, column 15 of the half-resolution map
    offsets = instance_offsets(instances) * 16.0  # half-resolution pixels
    np.testing.assert_allclose(offsets[:, 4, 10], (5, 2), atol=1e-5)
    np.testing.assert_allclose(offsets[:, 6, 15], (0, 0), atol=1e-5)
    assert np.isnan(offsets[:, 0, 0]).all()


def test_missing_modalities_count_as_unknown() -> None:
    bare = Sample(rgb=toy_room(0).rgb)
    batch = collate([bare, toy_room(0)])
    assert torch.isnan(batch.depth[0]).all()
    assert torch.isfinite(batch.depth[1]).all()
    assert (batch.normals[0] == 0).all()
    assert (batch.semantic[0] == 255).all()
    assert torch.isnan(batch.focal[0])


def test_a_stream_continues_where_it_was_cut(shards: Path) -> None:
    whole = list(itertools.islice(iter(stream(shards)), 8))  # more than one epoch of 5 batches
    position = whole[2][1]
    rest = list(itertools.islice(iter(stream(shards, position=Position(**position.as_dict()))), 5))
    for (expected, _), (batch, _) in zip(whole[3:], rest, strict=True):
        assert batch.names == expected.names
        assert torch.equal(batch.image, expected.image)


def test_an_epoch_shows_every_sample_once_over_all_processes(shards: Path) -> None:
    ranks = [itertools.islice(iter(stream(shards, batch_size=5, rank=rank, world=2)), 2) for rank in (0, 1)]
    names = [name for batches in ranks for batch, _ in batches for name in batch.names]
    assert sorted(names) == sorted(f"seed {seed}" for seed in range(20))


def test_new_shards_join_at_the_next_epoch(shards: Path) -> None:
    batches = iter(stream(shards))
    first = [next(batches)[0] for _ in range(2)]
    write_toy_shard(shards, range(100, 120))
    first += [next(batches)[0] for _ in range(3)]
    second = [next(batches)[0] for _ in range(10)]
    assert not any(name == "seed 100" for batch in first for name in batch.names)
    assert sum(name == "seed 100" for batch in second for name in batch.names) == 1


def test_what_breaks_in_the_thread_comes_out() -> None:
    def failing():
        yield 1
        raise OSError("disk gone")

    prefetcher = Prefetcher(failing())
    assert next(prefetcher) == 1
    with pytest.raises(OSError, match="disk gone"):
        next(prefetcher)
    prefetcher.close()
