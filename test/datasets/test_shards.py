"""Shards keep what was rendered, ignore unfinished folders and name damaged ones."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from diffusion_perception_ros.datasets.shards import ShardDataset, ShardWriter
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.sample import UNLABELLED, Intrinsics, Sample


HEIGHT, WIDTH = 6, 8


def make_sample(seed: int) -> Sample:
    rng = np.random.default_rng(seed)
    normals = rng.normal(size=(HEIGHT, WIDTH, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    depth = rng.uniform(0.3, 60.0, (HEIGHT, WIDTH)).astype(np.float32)
    depth[0, 0], depth[0, 1], depth[0, 2] = np.inf, np.nan, 1e6
    normals[0, :2] = np.nan
    return Sample(
        rgb=rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8),
        depth=depth,
        normals=normals,
        semantic=rng.integers(0, 32, (HEIGHT, WIDTH)).astype(np.uint8),
        instances=rng.integers(0, 40_000, (HEIGHT, WIDTH)).astype(np.uint16),
        intrinsics=Intrinsics(WIDTH, HEIGHT, 7.5, 7.25, 3.75, 2.5),
    )


def write_shard(folder: Path, seeds: range, count: int | None = None) -> Path:
    writer = ShardWriter(folder, count or len(seeds), HEIGHT, WIDTH)
    for seed in seeds:
        writer.append(make_sample(seed), seed)
    writer.finish({"scale": 1})
    return folder


def test_roundtrip_over_several_shards(tmp_path: Path) -> None:
    write_shard(tmp_path / "a" / "000", range(3), count=5)  # room for more than was written
    write_shard(tmp_path / "b", range(3, 5))
    dataset = pickle.loads(pickle.dumps(ShardDataset(tmp_path)))
    assert len(dataset) == 5
    for seed, sample in enumerate(dataset):
        original = make_sample(seed)
        assert sample.name == f"seed {seed}"
        assert sample.intrinsics == original.intrinsics
        np.testing.assert_array_equal(sample.rgb, original.rgb)
        np.testing.assert_array_equal(sample.semantic, original.semantic)
        np.testing.assert_array_equal(sample.instances, original.instances)
        assert np.isposinf(sample.depth[0, 0])
        assert np.isnan(sample.depth[0, 1])
        assert np.isfinite(sample.depth[0, 2])  # far, but no sky
        np.testing.assert_allclose(sample.depth[1:], original.depth[1:], rtol=5e-4)
        assert np.isnan(sample.normals[0, :2]).all()
        assert sample.normals.dtype == np.float32
        cosine = (sample.normals[1:] * original.normals[1:]).sum(-1)
        assert np.degrees(np.arccos(cosine.clip(-1, 1))).max() < 0.6
    assert dataset[-1].name == "seed 4"
    with pytest.raises(IndexError):
        dataset[5]


def test_a_picture_without_labels_reads_back_as_unknown(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path / "s", 1, HEIGHT, WIDTH)
    writer.append(Sample(rgb=np.zeros((HEIGHT, WIDTH, 3), np.uint8)))
    writer.finish()
    sample = ShardDataset(tmp_path)[0]
    assert np.isnan(sample.depth).all()
    assert np.isnan(sample.normals).all()
    assert (sample.semantic == UNLABELLED).all()
    assert not sample.instances.any()
    assert sample.intrinsics is None


def test_unfinished_shards_are_passed_over_and_written_anew(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path / "cut", 2, HEIGHT, WIDTH)
    writer.append(make_sample(0), 0)
    with pytest.raises(InputError, match="No finished shard"):
        ShardDataset(tmp_path)
    write_shard(tmp_path / "cut", range(10, 12))
    assert [sample.name for sample in ShardDataset(tmp_path)] == ["seed 10", "seed 11"]


def test_a_finished_shard_is_not_overwritten(tmp_path: Path) -> None:
    write_shard(tmp_path / "s", range(1))
    with pytest.raises(InputError, match="finished shard"):
        ShardWriter(tmp_path / "s", 1, HEIGHT, WIDTH)


def test_samples_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path / "s", 1, HEIGHT, WIDTH + 1)
    with pytest.raises(ValueError, match="images of"):
        writer.append(make_sample(0))


def cut_short(shard: Path) -> None:
    data = (shard / "depth.npy").read_bytes()
    (shard / "depth.npy").write_bytes(data[: len(data) // 2])


def remove_an_array(shard: Path) -> None:
    (shard / "normals.npy").unlink()


def change_a_dtype(shard: Path) -> None:
    np.save(shard / "semantic.npy", np.zeros((2, HEIGHT, WIDTH), np.int64))


def break_the_manifest(shard: Path) -> None:
    (shard / "shard.json").write_text("{")


def lose_the_count(shard: Path) -> None:
    (shard / "shard.json").write_text(json.dumps({"version": 1}))


def come_from_the_future(shard: Path) -> None:
    manifest = json.loads((shard / "shard.json").read_text())
    (shard / "shard.json").write_text(json.dumps({**manifest, "version": 99}))


@pytest.mark.parametrize(
    "damage",
    [cut_short, remove_an_array, change_a_dtype, break_the_manifest, lose_the_count, come_from_the_future],
)
def test_damaged_shards_are_named_and_left_out(tmp_path: Path, damage, caplog: pytest.LogCaptureFixture) -> None:
    write_shard(tmp_path / "good", range(2))
    bad = write_shard(tmp_path / "bad", range(2, 4))
    damage(bad)
    dataset = ShardDataset(tmp_path)
    assert len(dataset) == 2
    assert list(dataset.rejected) == [bad]
    assert str(bad) in caplog.text
    with pytest.raises(InputError, match="bad"):
        ShardDataset(bad)
