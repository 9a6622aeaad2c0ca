"""Few-shot adaptation: a small share of the parameters learns a new place; the result is a model like any other."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from adaptation_factory import (
    SIDE,
    floor_view,
    train_on_rooms,
    write_base_model,
    write_masks,
    write_robot_images,
)
from backbone_factory import SMALL_UNET
from bag_factory import BagSpec, write_bag
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from toy_rooms import write_toy_shard

from diffusion_perception_ros.cli.main import main
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.card import read_card
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.sample import Sample
from diffusion_perception_ros.training.batches import collate
from diffusion_perception_ros.training.checkpoint import AVERAGED, load_weights, read_checkpoint
from diffusion_perception_ros.training.config import load_config
from diffusion_perception_ros.training.lora import add_lora, learnt_parameters, merge_lora, plan_adapter
from diffusion_perception_ros.training.onestep.adaptation import Adaptation, with_classes
from diffusion_perception_ros.training.onestep.deployed import DeployedNet
from diffusion_perception_ros.training.onestep.losses import log_depth_target
from diffusion_perception_ros.training.onestep.network import NetworkConfig, OneStepNet
from diffusion_perception_ros.training.onestep.weights import read_weights
from diffusion_perception_ros.training.settings.parts import AdaptationConfig, LossWeights
from diffusion_perception_ros.training.trainer import BEST, Trainer


IMAGES = 20


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    return write_base_model(folder / "toy", train_on_rooms(folder, steps=60))


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_robot_images(tmp_path_factory.mktemp("data") / "robot", range(7000, 7028))


def adapt(base: Path, data: Path, folder: Path, *arguments: object) -> int:
    """Writes `folder`/model; the run is `folder`/run."""
    words = ["adapt", "--model", base, "--data", data, "--images", IMAGES, "-o", folder / "model"]
    words += ["--run", folder / "run", "--set", "run.threads=1", *arguments]
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def adapted(base: Path, robot: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapted")
    assert adapt(base, robot, folder, "--task", "depth", "--steps", 40, "--precision", "fp32") == 0
    return folder


@torch.no_grad()
def depth_error(network: OneStepNet, samples: list[Sample]) -> float:
    """Mean error of log depth, the scale of each picture taken off."""
    batch = collate(samples)
    target, weight = log_depth_target(batch)
    error = network(batch.image).log_depth[:, 0] - target
    error -= (error * weight).sum((1, 2), keepdim=True) / weight.sum((1, 2), keepdim=True)
    return ((error.abs() * weight).sum() / weight.sum()).item()


def test_error_falls_on_unseen_images_of_the_new_place(base: Path, adapted: Path) -> None:
    unseen = [floor_view(seed) for seed in range(9000, 9024)]
    before, after = depth_error(read_weights(base), unseen), depth_error(read_weights(adapted / "model"), unseen)
    assert after < 0.8 * before
    records = [json.loads(line) for line in (adapted / "run" / "evaluations.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [0, 40]
    assert records[1]["scores"]["abs_rel"] < records[0]["scores"]["abs_rel"]


def test_images_are_held_out_at_the_end_with_a_gap(adapted: Path) -> None:
    record = json.loads((adapted / "run" / "adaptation.json").read_text())
    learnt, held_out = ([int(name[-4:]) for name in record[key]] for key in ("images", "held_out"))
    assert len(learnt) == IMAGES
    assert learnt == sorted(learnt)
    assert max(learnt) < 7021
    assert held_out == [*range(7022, 7028)]


def test_the_card_and_the_readme_say_what_was_done(base: Path, adapted: Path) -> None:
    card, before = read_card(adapted / "model"), read_card(base)
    assert card.name == "model"
    assert card.labels == before.labels
    assert card.precision == "fp32"
    assert "then 20 images of robot" in card.source.training_data
    assert card.source.command is not None
    assert str(base.parent) not in card.source.command
    readme = (adapted / "model" / "README.md").read_text()
    row = next(line for line in readme.splitlines() if line.startswith("| depth AbsRel, scale and shift"))
    worse, better = (float(cell) for cell in row.split("|")[2:4])
    assert better < worse
    assert "6 held-out images" in readme
    assert (adapted / "model" / "CREDITS.md").is_file() == (base / "CREDITS.md").is_file()


def test_the_exported_graph_answers_as_the_adapted_network(adapted: Path) -> None:
    checkpoint = read_checkpoint(adapted / "run" / "checkpoints" / "step_00000040")
    merged = checkpoint.averaged_network()
    beside = OneStepNet(checkpoint.network).eval()
    add_lora(beside, plan_adapter(beside, 0.01))
    load_weights(beside, checkpoint.folder / AVERAGED)
    rgb = floor_view(9100).rgb
    image = collate([Sample(rgb=rgb)]).image
    with torch.no_grad():
        for ours, theirs in zip(merged(image), beside(image), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)
        depth = DeployedNet(merged).eval()(image)[0][0, 0]
    said = Estimator.load(adapted / "model", threads=1).predict(rgb).depth_relative
    assert said is not None
    np.testing.assert_allclose(said, depth.numpy(), atol=1e-3)


@pytest.mark.parametrize("trained", [(), ("labelling.out",)])
def test_the_bundled_size_learns_at_most_one_percent(trained: tuple[str, ...]) -> None:
    network = OneStepNet(NetworkConfig(classes=32))
    whole = sum(parameter.numel() for parameter in network.parameters())
    adapter = plan_adapter(network, 0.01, trained)
    add_lora(network, adapter)
    assert 0.009 * whole < learnt_parameters(network) <= 0.01 * whole
    layers = sum(isinstance(module, torch.nn.Conv2d) for module in OneStepNet(network.config).modules())
    assert len(adapter.ranks) + len(trained) == layers


def test_merging_leaves_a_plain_network_with_the_same_answers() -> None:
    torch.manual_seed(0)
    network = OneStepNet(NetworkConfig(classes=5)).eval()
    before, image = copy.deepcopy(network), torch.randn(1, 3, 64, 64)
    add_lora(network, plan_adapter(network, 0.01))
    with torch.no_grad():
        for ours, theirs in zip(network(image), before(image), strict=True):
            torch.testing.assert_close(ours, theirs)
        for name, parameter in network.named_parameters():
            if "lora" in name:
                parameter.normal_(0.0, 0.05)
        beside = network(image)
        assert (beside.log_depth - before(image).log_depth).abs().max() > 1e-3
        merge_lora(network)
        for ours, theirs in zip(network(image), beside, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert network.state_dict().keys() == before.state_dict().keys()


def test_what_is_not_learnt_is_pulled_back_to_what_it_was() -> None:
    torch.manual_seed(0)
    network, image = OneStepNet(NetworkConfig(classes=5)).eval(), torch.randn(1, 3, 64, 64)
    adaptation = Adaptation(network, AdaptationConfig(tasks=("normals",)))
    weights = LossWeights()
    learnt = adaptation.learnt(weights)
    assert (learnt.normals, learnt.scale_invariant, learnt.semantic) == (weights.normals, 0.0, 0.0)
    at_first = adaptation.kept(network(image), image, None, weights)
    assert set(at_first) == {"kept_depth", "kept_semantic", "kept_instances"}
    assert all(value.item() == pytest.approx(0.0, abs=1e-6) for value in at_first.values())
    for parameter in network.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, 0.0, 0.3)
    later = adaptation.kept(network(image), image, None, weights)
    assert all(value.item() > 1e-5 for value in later.values())


def test_known_classes_keep_their_rows() -> None:
    network, image = OneStepNet(NetworkConfig(classes=3)).eval(), torch.randn(1, 3, 64, 64)
    other = with_classes(network, ("wall", "floor", "door"), ("door", "robot", "wall"))
    before, after = network(image), other(image)
    torch.testing.assert_close(after.semantic[:, 0], before.semantic[:, 2])
    torch.testing.assert_close(after.semantic[:, 2], before.semantic[:, 0])
    torch.testing.assert_close(after.semantic[:, 1], before.semantic.mean(1))
    torch.testing.assert_close(after.offsets, before.offsets)


def test_own_classes(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_masks(tmp_path / "masks", range(7000, 7028), ["mark", "floor"])
    arguments = ("--task", "semantic", "--steps", 100, "--precision", "fp32")
    assert adapt(base, data, tmp_path, *arguments) == 2
    assert "labels mark, which 'toy' lacks (it has wall, floor," in capsys.readouterr().err
    assert adapt(base, data, tmp_path, *arguments, "--labels", "own") == 0
    card = read_card(tmp_path / "model")
    assert [(label.id, label.name) for label in card.labels] == [(0, "mark"), (1, "floor")]
    assert card.labels[1].color == next(label.color for label in read_card(base).labels if label.name == "floor")
    last = json.loads((tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()[-1])["scores"]
    assert last["miou"] > last["majority_miou"]
    said = Estimator.load(tmp_path / "model", threads=1).predict(floor_view(9200).rgb).semantic
    assert said is not None
    assert set(np.unique(said)) <= {0, 1}
    assert "Classes: mark, floor." in (tmp_path / "model" / "README.md").read_text()


def test_a_model_that_is_not_better_is_not_written(
    base: Path, robot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--task", "depth", "--steps", 1, "--set", "optimiser.learning_rate=1.0e-30")
    assert adapt(base, robot, tmp_path, *arguments) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "not better on the held-out images (depth)" in said
    assert not (tmp_path / "model").exists()
    assert adapt(base, robot, tmp_path, "--task", "depth", "--steps", 2) == 2
    assert "other arguments" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_names_the_images(
    base: Path, robot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wild = ("--set", "optimiser.learning_rate=1.0e+30", "--set", "optimiser.warmup_steps=0")
    assert adapt(base, robot, tmp_path, "--task", "depth", "--steps", 20, *wild) == 2
    message = capsys.readouterr().err
    assert "on the samples adapt/" in message
    assert "the last good state is" in message
    assert not (tmp_path / "model").exists()


def spoil_depth(data: Path) -> None:
    for path in sorted((data / "depth").iterdir())[:10]:
        cv2.imwrite(str(path), np.zeros((SIDE, SIDE), np.uint16))


def shrink_masks(data: Path) -> None:
    for path in (data / "masks").iterdir():
        cv2.imwrite(str(path), np.zeros((SIDE, 8), np.uint8))


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("robot", ["--images", "26"], "has 28 images: 21 are left when 20% are held out, 26 were asked for"),
        ("spoilt", [], "only 11 of the 20 images needed .* has no pixel with depth"),
        ("bag", ["--depth-topic", "/nowhere", "--images", "2"], "no image topic /nowhere: it has"),
        ("no depth", ["--images", "2"], "has no colour images with depth"),
        ("bag", ["--task", "semantic", "--images", "2"], "is a bag, which has no classes"),
        ("masks", ["--task", "semantic"], "only 0 of the 20 images needed .* is 8x64 but its picture is 64x64"),
        ("masks", ["--task", "semantic", "depth"], "labels for 'semantic' only"),
        ("robot", ["--held-out", "1.5"], "--held-out is a share between 0 and 1"),
        ("robot", ["--labels", "own"], "are for --task semantic"),
        ("robot", ["--set", "adaptation.share=1.0e-9"], "too little for any layer"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(
    base: Path,
    robot: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    arguments: list[str],
    message: str,
) -> None:
    if kind == "robot":
        data = robot
    elif kind == "spoilt":
        data = write_robot_images(tmp_path / "spoilt", range(7000, 7028))
        spoil_depth(data)
    elif kind == "masks":
        data = write_masks(tmp_path / "masks", range(7000, 7028), ["box", "floor"])
        shrink_masks(data)
    else:
        data = write_bag(tmp_path / "bag", BagSpec(depth=kind == "bag"))
    task = [] if "--task" in arguments else ["--task", "depth"]
    assert adapt(base, data, tmp_path, *task, *arguments) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "model").exists()


def test_a_run_folder_that_cannot_be_written_is_named(
    base: Path, robot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").write_text("in the way")
    assert adapt(base, robot, tmp_path, "--task", "depth") == 2
    assert f"Cannot write the shard {tmp_path / 'run'}" in capsys.readouterr().err


def test_a_diffusion_network_adapts_through_the_trainer(tmp_path: Path) -> None:
    rooms = str(write_toy_shard(tmp_path / "rooms", range(8), 32, 32))
    settings: dict[str, Any] = {
        "name": "toy",
        "network": {"kind": "unet", "tasks": ["depth"], "config": SMALL_UNET},
        "data": {"train": rooms, "validation": rooms, "sizes": [[32, 32]], "batch_size": 4},
        "run": {"threads": 1, "validation_samples": 2, "max_steps": 2},
    }
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(settings))
    Trainer(load_config(tmp_path / "toy.yaml"), tmp_path / "first").train()
    start = tmp_path / "first" / BEST / AVERAGED
    with pytest.raises(InputError, match="needs 'init_from'"):
        load_config(tmp_path / "toy.yaml", ["adaptation={share: 0.02}"])
    config = load_config(tmp_path / "toy.yaml", ["adaptation={share: 0.02}", f"init_from={start}"])
    Trainer(config, tmp_path / "second").train()
    before = {name.removeprefix("unet."): value for name, value in load_file(start).items()}
    after = UNet2DConditionModel.from_pretrained(tmp_path / "second" / "pipeline", subfolder="unet").state_dict()
    assert before.keys() == after.keys()
    changed = [name for name, value in after.items() if not torch.equal(value, before[name])]
    assert changed
    assert all(name.endswith(".weight") for name in changed)
    best = load_file(tmp_path / "second" / BEST / AVERAGED)
    learnt = sum(tensor.numel() for name, tensor in best.items() if "lora" in name)
    assert 0 < learnt <= 0.02 * sum(tensor.numel() for tensor in before.values())
