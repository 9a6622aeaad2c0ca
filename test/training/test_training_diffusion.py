"""Diffusion backbones in the trainer: every objective of the papers learns toy rooms that it has not seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from backbone_factory import SMALL_UNET
from diffusers import UNet2DConditionModel
from family_checkpoints import write_sd2_parts
from safetensors.torch import load_file
from toy_rooms import toy_room, write_toy_shard

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.training.batches import collate
from diffusion_perception_ros.training.checkpoint import read_checkpoint
from diffusion_perception_ros.training.config import load_config
from diffusion_perception_ros.training.diffusion.annotations import annotate, estimates_of
from diffusion_perception_ros.training.diffusion.backbones import task_switch, widen_input
from diffusion_perception_ros.training.diffusion.codec import PixelCodec
from diffusion_perception_ros.training.trainer import BEST, Trainer
from diffusion_perception_ros.training.validation import validate


SMALL_DIT = {
    "sample_size": 8,
    "patch_size": 2,
    "num_layers": 2,
    "num_attention_heads": 4,
    "attention_head_dim": 16,
    "norm_num_groups": 8,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    write_toy_shard(folder / "train", range(160))
    write_toy_shard(folder / "val", range(5000, 5024))
    return folder


def write_config(path: Path, data: Path, objective: dict[str, Any], **network: Any) -> Path:
    fields = {
        "name": "toy",
        "network": {"kind": "unet", "tasks": ["depth"], "config": SMALL_UNET, **network},
        "objective": objective,
        "data": {
            "train": str(data / "train"),
            "validation": str(data / "val"),
            "sizes": [[32, 32]],
            "batch_size": 16,
        },
        "optimiser": {"learning_rate": 2e-3, "warmup_steps": 5, "ema": 0.9},
        "run": {"threads": 1, "validation_samples": 24, "max_steps": 70},
    }
    path.write_text(yaml.safe_dump(fields))
    return path


def scores(run: Path) -> dict[str, float]:
    return json.loads((run / "evaluations.jsonl").read_text().splitlines()[-1])["scores"]


@pytest.mark.parametrize("task", ["depth", "disparity", "normals", "semantic"])
def test_an_annotation_says_what_the_ground_truth_says(task: str) -> None:
    batch = collate([toy_room(seed) for seed in range(3)])
    annotation = annotate(task, batch)
    assert annotation.picture.shape == batch.image.shape
    assert annotation.picture.abs().max() <= 1.0 + 1e-6
    codec = PixelCodec(4)
    assert torch.equal(codec.decode(codec.encode(annotation.picture)), annotation.picture)
    found = validate(lambda _: estimates_of(task, annotation.picture), [batch])
    if task == "normals":
        assert found["normals_mean"] < 0.1
    elif task == "semantic":
        assert found["pixel_accuracy"] == 1.0
    else:
        assert found["delta1"] > 0.97  # the farthest and nearest 2 % are clipped


@pytest.mark.parametrize(
    "objective",
    [
        {"kind": "lotus_d"},
        {"kind": "lotus_g", "detail_preserver": False},
        {"kind": "genpercept"},
        {"kind": "multi_step", "prediction_type": "sample", "num_inference_steps": 4},
        {"kind": "multi_step", "prediction_type": "v_prediction", "num_inference_steps": 4},
        {"kind": "flow_matching", "num_inference_steps": 4},
    ],
    ids=lambda objective: "-".join(str(value) for value in objective.values()),
)
def test_every_objective_learns_unseen_rooms(tmp_path: Path, data: Path, objective: dict[str, Any]) -> None:
    config = load_config(write_config(tmp_path / "toy.yaml", data, objective))
    untrained = Trainer(load_config(tmp_path / "toy.yaml", ["run.max_steps=1"]), tmp_path / "untrained")
    untrained.train()
    assert Trainer(config, tmp_path / "run").train()
    before, after = scores(tmp_path / "untrained"), scores(tmp_path / "run")
    assert after["abs_rel"] < 0.95 * before["abs_rel"]
    assert after["abs_rel"] < after["constant_abs_rel"]
    assert list((tmp_path / "run" / "pictures").glob("*.jpg"))


def test_one_network_learns_several_tasks(tmp_path: Path, data: Path) -> None:
    write_config(tmp_path / "toy.yaml", data, {"kind": "lotus_d"}, tasks=["depth", "normals", "semantic"])
    Trainer(load_config(tmp_path / "toy.yaml", ["run.max_steps=220"]), tmp_path / "run").train()
    found = scores(tmp_path / "run")
    assert found["abs_rel"] < found["constant_abs_rel"]
    assert found["normals_mean"] < 50.0
    assert found["pixel_accuracy"] > 0.25  # nearest of 32 colours: blends of two colours are a third class
    identity = read_checkpoint(tmp_path / "run" / BEST).identity
    assert identity["tasks"] == ["depth", "normals", "semantic"]
    with pytest.raises(InputError, match="no checkpoint of a onestep network but of a 'unet'"):
        _ = read_checkpoint(tmp_path / "run" / BEST).network
    with pytest.raises(InputError, match="another network"):
        Trainer(load_config(tmp_path / "toy.yaml", ["network.tasks=[depth]"]), tmp_path / "run")


def test_a_transformer_learns_and_takes_its_own_size_only(tmp_path: Path, data: Path) -> None:
    write_config(tmp_path / "toy.yaml", data, {"kind": "lotus_d"}, kind="dit", config=SMALL_DIT)
    Trainer(load_config(tmp_path / "toy.yaml"), tmp_path / "run").train()
    assert scores(tmp_path / "run")["abs_rel"] < scores(tmp_path / "run")["constant_abs_rel"]
    with pytest.raises(InputError, match=r"a DiT takes 32 pixels square .*, not 64x32"):
        Trainer(load_config(tmp_path / "toy.yaml", ["data.sizes=[[64, 32]]"]), tmp_path / "other")


def test_a_published_unet_is_fine_tuned_and_comes_out_in_its_layout(tmp_path: Path, data: Path) -> None:
    base = write_sd2_parts(tmp_path / "base", in_channels=4)
    write_config(tmp_path / "toy.yaml", data, {"kind": "lotus_g"}, pretrained=str(base), config={})
    config = load_config(
        tmp_path / "toy.yaml",
        ["run.max_steps=3", "data.sizes=[[64, 64]]", "data.batch_size=2", "network.gradient_checkpointing=true"],
    )
    assert Trainer(config, tmp_path / "run").train()
    assert scores(tmp_path / "run")["abs_rel"] > 0
    pipeline = tmp_path / "run" / "pipeline"
    unet = UNet2DConditionModel.from_pretrained(pipeline, subfolder="unet")
    assert unet.config.in_channels == unet.conv_in.in_channels == 8
    assert unet.config.projection_class_embeddings_input_dim == 4
    assert {path.name for path in pipeline.iterdir()} >= {"unet", "vae", "text_encoder", "tokenizer"}
    best = load_file(tmp_path / "run" / BEST / "ema.safetensors")
    assert torch.equal(unet.conv_in.weight, best["unet.conv_in.weight"])


@pytest.mark.parametrize("part", ["vae", "text_encoder", "unet"])
def test_pickled_weights_are_refused(tmp_path: Path, data: Path, part: str) -> None:
    """Both libraries would read them, with nothing but a line in the log."""
    base = write_sd2_parts(tmp_path / "base", in_channels=4)
    (weights,) = (base / part).glob("*.safetensors")
    pickled = "pytorch_model.bin" if part == "text_encoder" else "diffusion_pytorch_model.bin"
    torch.save(load_file(weights), weights.with_name(pickled))
    weights.unlink()
    write_config(tmp_path / "toy.yaml", data, {"kind": "lotus_g"}, pretrained=str(base), config={})
    with pytest.raises(InputError) as error:
        Trainer(load_config(tmp_path / "toy.yaml"), tmp_path / "run")
    assert str(error.value) == (
        f"{base / part} has no .safetensors file, and other formats are not read because they can run code: convert "
        "the weights once with save_pretrained"
    )


def test_a_widened_convolution_answers_alike_and_the_task_switch_is_lotus_s() -> None:
    unet = UNet2DConditionModel(**SMALL_UNET, in_channels=4, out_channels=4)
    latent = torch.randn(1, 4, 8, 8)
    before = unet.conv_in(latent)
    widen_input(unet, 8)
    assert torch.allclose(unet.conv_in(torch.cat([latent, latent], 1)), before, atol=1e-5)
    with pytest.raises(InputError, match="cannot be widened to 12"):
        widen_input(unet, 12)
    expected = torch.tensor([[0.84147, 0.0, 0.54030, 1.0]])
    assert torch.allclose(task_switch(0, 2, latent), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["network={kind: onestep}"], "objective 'genpercept' needs a diffusion backbone"),
        (["network.tasks=[depth, depth]"], "appears twice"),
        (["network.tasks=[colour]"], "network.unet.tasks"),
        (["network.pretrained=x"], "give either 'pretrained' or 'config'"),
        (["objective.num_inference_steps=3"], "'num_inference_steps' has no meaning for 'genpercept'"),
    ],
)
def test_contradictions_are_named(tmp_path: Path, data: Path, overrides: list[str], message: str) -> None:
    config = write_config(tmp_path / "toy.yaml", data, {"kind": "genpercept"})
    with pytest.raises(InputError) as error:
        load_config(config, overrides)
    assert message in str(error.value)


def test_networks_that_cannot_be_built_are_named(tmp_path: Path, data: Path) -> None:
    write_config(tmp_path / "toy.yaml", data, {"kind": "lotus_d"})
    odd = load_config(tmp_path / "toy.yaml", ["network.config={block_outchannels: [8]}"])
    with pytest.raises(InputError, match=r"network\.config is no unet"):
        Trainer(odd, tmp_path / "run")
    missing = load_config(tmp_path / "toy.yaml", ["network.config={}", f"network.pretrained={tmp_path / 'none'}"])
    with pytest.raises(InputError, match="has no autoencoder that can be loaded"):
        Trainer(missing, tmp_path / "run")
