"""Diff-2-in-1: one network perceives and creates, and learns from what it creates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from toy_rooms import toy_room, write_toy_shard

from diffusion_perception_ros.cli.main import main
from diffusion_perception_ros.datasets.shards import ShardDataset, ShardWriter
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.card import read_card
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.sample import UNLABELLED, Sample
from diffusion_perception_ros.training.batches import collate
from diffusion_perception_ros.training.checkpoint import latest_checkpoint, load_tensors, read_checkpoint
from diffusion_perception_ros.training.config import load_config
from diffusion_perception_ros.training.diffusion.codec import PixelCodec
from diffusion_perception_ros.training.diffusion.joint import (
    FARTHEST,
    NEAREST,
    JointDiffusion,
    JointSpace,
    depth_of,
    relative_focal,
)
from diffusion_perception_ros.training.diffusion.joint_learner import load_learner
from diffusion_perception_ros.training.trainer import BEST, Trainer
from diffusion_perception_ros.training.validation import mean_error
from diffusion_perception_ros.world.labels import LABELS


SIDE = 32
TASKS = ["depth", "normals", "semantic"]
TINY_DIT = {
    "sample_size": 8,
    "patch_size": 1,
    "num_layers": 2,
    "num_attention_heads": 4,
    "attention_head_dim": 16,
    "norm_num_groups": 8,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    write_toy_shard(folder / "train", range(64), SIDE, SIDE)
    write_toy_shard(folder / "val", range(5000, 5016), SIDE, SIDE)
    return folder


def write_config(path: Path, data: Path, **fields: Any) -> Path:
    config = {
        "name": "toy",
        "network": {"kind": "dit", "tasks": TASKS, "config": TINY_DIT},
        "objective": {"kind": "joint", "num_inference_steps": 5},
        "data": {
            "train": str(data / "train"),
            "validation": str(data / "val"),
            "sizes": [[SIDE, SIDE]],
            "batch_size": 16,
        },
        "augmentation": {"zoom": [0.9, 1.0], "noise": 0.0},
        "optimiser": {"learning_rate": 4e-3, "warmup_steps": 5, "ema": 0.9, "clip_norm": 1.0},
        "run": {"threads": 1, "precision": "fp32", "validation_samples": 16, "max_steps": 120, "score": "tasks"},
    }
    path.write_text(yaml.safe_dump(config | fields))
    return path


@pytest.fixture(scope="module")
def first_stage(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A run folder."""
    folder = tmp_path_factory.mktemp("first")
    config = load_config(write_config(folder / "toy.yaml", data))
    assert Trainer(config, folder / "run").train()
    return folder / "run"


def evaluations(run: Path) -> list[dict[str, float]]:
    return [json.loads(line)["scores"] for line in (run / "evaluations.jsonl").read_text().splitlines()]


def improving(first_stage: Path, data: Path, tmp_path: Path, *overrides: str) -> Any:
    write_config(
        tmp_path / "improve.yaml",
        data,
        init_from=str(first_stage / BEST / "ema.safetensors"),
        self_improvement={"share": 0.5},
    )
    return load_config(tmp_path / "improve.yaml", ["optimiser.learning_rate=1e-3", *overrides])


def test_a_batch_and_its_latents_say_the_same(tmp_path: Path) -> None:
    samples = [toy_room(seed, SIDE, SIDE) for seed in range(3)]
    samples[0].depth[:4] = np.inf
    samples[0].normals[:4] = np.nan
    batch = collate(samples)
    space = JointSpace(PixelCodec(4), tuple(TASKS))
    pairs = space.encode(batch)
    depth, normals, _ = space.decode(pairs.annotations)
    metres = depth_of(depth) * relative_focal(batch)[:, None, None]
    known = torch.isfinite(batch.depth)
    assert torch.equal(torch.isposinf(metres), torch.isposinf(batch.depth))
    torch.testing.assert_close(metres[known], batch.depth[known], rtol=1e-3, atol=0.0)
    assert pairs.known[0].all()  # the sky has no normals, and that is known
    assert normals[0, :, :4].abs().max() == 0.0
    torch.testing.assert_close(space.decode(pairs.picture)[0], batch.image)


def test_creation_from_a_perfect_network_gives_the_real_pair_back() -> None:
    """One that always answers with the clean latents: DDIM must end there, from any noise."""
    clean = torch.rand(2, 8, 4, 4) * 2 - 1
    asked: list[int] = []

    def network(noisy: torch.Tensor, steps: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        asked.append(int(steps[0]))
        assert (wanted == 1).all()
        return clean

    diffusion = JointDiffusion(PixelCodec(1))
    for level, first, count in ((0.6, 599, 6), (1.0, 999, 10)):
        asked.clear()
        made = diffusion.create(network, clean, level, 10, torch.Generator().manual_seed(0))
        torch.testing.assert_close(made, clean, atol=1e-5, rtol=0.0)
        assert (asked[0], len(asked)) == (first, count)


def test_the_network_learns_unseen_rooms_and_writes_its_pipeline(first_stage: Path) -> None:
    (found,) = evaluations(first_stage)
    assert found["abs_rel"] < found["constant_abs_rel"]
    assert found["normals_mean"] < 0.9 * found["constant_normals_mean"]
    assert found["miou"] > found["majority_miou"]
    assert (first_stage / "pipeline" / "transformer" / "diffusion_pytorch_model.safetensors").is_file()


def test_it_improves_itself(tmp_path: Path, data: Path, first_stage: Path) -> None:
    config = improving(first_stage, data, tmp_path, "run.max_steps=50")
    assert Trainer(config, tmp_path / "run").train()
    before, after = evaluations(tmp_path / "run")
    assert mean_error(after) < mean_error(before)


def test_a_cut_run_goes_on_exactly(tmp_path: Path, data: Path, first_stage: Path) -> None:
    """What is created depends on the averaged weights: they must come back as they were."""
    config = improving(first_stage, data, tmp_path, "run.max_steps=6")
    Trainer(config, tmp_path / "whole").train()
    part = Trainer(config, tmp_path / "cut")
    source = iter(part.batches())
    for _ in range(3):
        part.optimiser_step(source)  # type: ignore[arg-type]
        part.step += 1
    part._save()
    Trainer(config, tmp_path / "cut").train()
    runs = [latest_checkpoint(tmp_path / name) for name in ("whole", "cut")]
    for name in ("network.safetensors", "ema.safetensors"):
        whole, cut = (load_tensors(run / name) for run in runs)  # type: ignore[operator]
        for key, value in whole.items():
            assert torch.equal(value, cut[key]), key


@pytest.mark.parametrize("noise_level", ["0.6", "1"])
def test_created_pairs_are_samples(tmp_path: Path, data: Path, first_stage: Path, noise_level: str) -> None:
    sheet, shards = tmp_path / "sheet.png", tmp_path / "pairs"
    given = ["--data", str(data / "train")] if noise_level != "1" else []
    command = ["create", str(first_stage), *given, "--count", "20", "--noise-level", noise_level]
    assert main([*command, "--sheet", str(sheet), "-o", str(shards)]) == 0
    created = ShardDataset(shards)
    assert len(created) == 20
    for sample in created:
        assert sample.rgb.shape == (SIDE, SIDE, 3)
        assert sample.rgb.std() > 1.0
        near, far = (limit * sample.intrinsics.fx / SIDE for limit in (NEAREST, FARTHEST))
        finite = sample.depth[np.isfinite(sample.depth)]
        assert not np.isnan(sample.depth).any()
        assert (finite >= 0.99 * near).all()
        assert (finite <= 1.01 * far).all()
        lengths = np.linalg.norm(sample.normals, axis=-1)
        np.testing.assert_allclose(lengths[np.isfinite(lengths)], 1.0, atol=0.02)
        assert sample.semantic.max() < len(LABELS)
    real = ShardDataset(data / "train")
    if noise_level != "1":
        assert created[3].intrinsics == real[3].intrinsics
        difference = np.abs(created[3].rgb.astype(float) - real[3].rgb).mean()
        assert 1.0 < difference < np.abs(created[3].rgb.astype(float) - real[9].rgb).mean()
    columns = 4 if noise_level == "1" else 5
    assert cv2.imread(str(sheet)).shape == (10 * 100, 2 * columns * 100, 3)
    assert Trainer(
        load_config(write_config(tmp_path / "on.yaml", data), [f"data.train={shards}", "run.max_steps=1"]),
        tmp_path / "on",
    ).train()


def test_the_same_seed_creates_the_same(tmp_path: Path, data: Path, first_stage: Path) -> None:
    command = ["create", str(first_stage), "--data", str(data / "train"), "--count", "2"]
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert main([*command, "--seed", seed, "-o", str(tmp_path / name)]) == 0
    a, b, c = (ShardDataset(tmp_path / name)[0].rgb for name in "abc")
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_the_creation_copy_is_deployed(tmp_path: Path, data: Path, first_stage: Path) -> None:
    """The robot sees with the averaged weights what the trainer's validation sees with them."""
    folder = tmp_path / "model"
    assert main(["export", "native", "--checkpoint", str(first_stage / BEST), "-o", str(folder)]) == 0
    assert read_card(folder).tasks == ("depth", "normals", "semantic")
    sample = toy_room(7000, SIDE, SIDE)
    said = Estimator.load(folder, "cpu", threads=1).predict(sample.rgb)
    learner, _ = load_learner(read_checkpoint(first_stage / BEST))
    with torch.no_grad():
        expected = learner.estimates(learner.network, collate([sample]))
    relative = (expected.depth[0].clamp(max=FARTHEST).numpy() - NEAREST) / (FARTHEST - NEAREST)
    np.testing.assert_allclose(said.depth_relative, relative, atol=1e-4)
    normals = torch.nn.functional.normalize(expected.normals[0], dim=0).permute(1, 2, 0)
    np.testing.assert_allclose(said.normals, normals, atol=1e-3)
    assert np.mean(said.semantic[1::2, 1::2] == expected.semantic[0].numpy()) > 0.99


def test_data_without_ground_truth_is_named(tmp_path: Path, data: Path, first_stage: Path) -> None:
    writer = ShardWriter(tmp_path / "bare" / "0", 4, SIDE, SIDE)
    for seed in range(4):
        room = toy_room(seed, SIDE, SIDE)
        writer.append(Sample(rgb=room.rgb, depth=room.depth, semantic=np.full_like(room.semantic, UNLABELLED)))
    writer.finish()
    config = load_config(write_config(tmp_path / "bare.yaml", data), [f"data.train={tmp_path / 'bare'}"])
    with pytest.raises(InputError, match=r"the samples 0/\d, .* have no ground truth of 'normals'"):
        Trainer(config, tmp_path / "run").train()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--count", "65"], "holds 64 samples, --count asks for 65"),
        (["--count", "0"], "--count 0: at least 1"),
        (["--noise-level", "1.5"], "--noise-level 1.5: it is a share of T"),
        (["--sheet", "sheet.gif"], "the name must end in .png or .jpg"),
    ],
)
def test_bad_orders_are_refused(
    tmp_path: Path, data: Path, first_stage: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    command = ["create", str(first_stage), "--data", str(data / "train"), "-o", str(tmp_path / "pairs")]
    assert main([*command, *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "pairs").exists()


def test_a_network_that_has_diverged_is_named(
    tmp_path: Path, data: Path, first_stage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import save_file

    checkpoint = tmp_path / "best"
    checkpoint.mkdir()
    (checkpoint / "checkpoint.json").write_text((first_stage / BEST / "checkpoint.json").read_text())
    weights = load_tensors(first_stage / BEST / "ema.safetensors")
    save_file({name: torch.full_like(value, float("nan")) for name, value in weights.items()},
              checkpoint / "ema.safetensors")  # fmt: skip
    command = ["create", str(checkpoint), "--data", str(data / "train"), "-o", str(tmp_path / "pairs")]
    assert main(command) == 2
    assert "values that are not finite" in capsys.readouterr().err
    assert not (tmp_path / "pairs").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["objective={kind: lotus_d}", "self_improvement={}"], "'self_improvement' needs a network that creates"),
        (["self_improvement={}"], "'self_improvement' needs 'init_from'"),
        (["self_improvement={share: 1.0}", "init_from=x"], "self_improvement.share"),
        (["self_improvement={}", "init_from=x", "data.batch_size=1"], "batches of at least 2"),
        (["network.tasks=[depth, flow]"], "'joint' knows the tasks depth, normals, semantic, not flow"),
        (["objective={kind: lotus_d, perception_share: 0.3}"], "'perception_share' has no meaning for 'lotus_d'"),
    ],
)
def test_contradictions_are_named(tmp_path: Path, data: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(InputError) as error:
        load_config(write_config(tmp_path / "toy.yaml", data), overrides)
    assert message in str(error.value)


def test_other_networks_create_nothing(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = load_config(
        write_config(tmp_path / "toy.yaml", data),
        ["objective={kind: lotus_d, detail_preserver: false}", "run.max_steps=1"],
    )
    Trainer(config, tmp_path / "run").train()
    assert main(["create", str(tmp_path / "run"), "--noise-level", "1", "--sheet", str(tmp_path / "s.png")]) == 2
    assert "of a network that creates nothing" in capsys.readouterr().err
