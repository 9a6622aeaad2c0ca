"""Checkpoint → model folder: the graph says what PyTorch says, the folder is whole or not there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from model_factory import write_model
from toy_rooms import toy_room, write_toy_shard

from diffusion_perception_ros.cli.main import main
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.export.options import ExportOptions
from diffusion_perception_ros.inference.card import CardError, DepthOutput, read_card
from diffusion_perception_ros.training.checkpoint import AVERAGED, write_checkpoint
from diffusion_perception_ros.training.onestep.deployed import DeployedNet
from diffusion_perception_ros.training.onestep.export import export_model
from diffusion_perception_ros.training.onestep.network import FOCAL_SCALE, NetworkConfig, OneStepNet
from diffusion_perception_ros.training.onestep.weights import read_weights
from diffusion_perception_ros.world.labels import LABELS


def write_toy_checkpoint(folder: Path, data: Path, noise_channels: int = 0) -> OneStepNet:
    """An untrained network whose BatchNorm has seen something, as a checkpoint."""
    torch.manual_seed(0)
    config = NetworkConfig(classes=len(LABELS), noise_channels=noise_channels)
    network = OneStepNet(config)
    for _ in range(3):
        network(torch.randn(4, 3, 64, 64), torch.randn(4, noise_channels, 16, 16) if noise_channels else None)
    source = [{"kind": "shards", "path": str(data)}]  # as the trainer stores it
    settings = {"seed": 0, "data": {"train": source, "sizes": [[96, 64]], "batch_size": 4}}
    state = {"name": "toy", "step": 3, "samples": 12, "seconds": 60.0, "config": settings}
    write_checkpoint(folder, config.model_dump(), state, {AVERAGED: network.state_dict()})
    return network.eval()


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_shard(tmp_path_factory.mktemp("rooms"), range(16), 96, 64)


@pytest.mark.parametrize("noise_channels", [0, 4])
def test_graph_agrees_with_pytorch_at_other_sizes_and_batches(
    tmp_path: Path, rooms: Path, noise_channels: int
) -> None:
    network = write_toy_checkpoint(tmp_path / "checkpoint", rooms, noise_channels)
    evaluation = {"minutes": 6.2, "samples": 5360, "scores": {"abs_rel": 0.4306, "normals_mean": 36.9}}
    (tmp_path / "evaluations.jsonl").write_text(json.dumps(evaluation) + "\n")
    folder = tmp_path / "toy-model"
    assert main(["export", "native", "--checkpoint", str(tmp_path / "checkpoint"), "-o", str(folder)]) == 0
    card = read_card(folder)
    assert card.name == "toy-model"
    assert card.parity["depth_max"] < 1e-3
    assert [label.name for label in card.labels] == [label.name for label in LABELS]
    assert (card.noise is None) == (noise_channels == 0)
    session = onnxruntime.InferenceSession(str(folder / card.graph), providers=["CPUExecutionProvider"])
    for shape in ((1, 3, 64, 32), (2, 3, 96, 160)):
        feed = {"image": torch.randn(shape)}
        if noise_channels:
            feed["noise"] = torch.randn(shape[0], noise_channels, shape[2] // 4, shape[3] // 4)
        with torch.no_grad():
            expected = DeployedNet(network)(*feed.values())
        actual = session.run(None, {name: value.numpy() for name, value in feed.items()})
        for ours, theirs in zip(actual, expected, strict=True):
            np.testing.assert_allclose(ours, theirs.numpy(), atol=2e-3)
    readme = (folder / "README.md").read_text()
    assert "Graph against PyTorch" in readme
    assert "| 6 | 5.4 k | 0.431 | 36.9° |" in readme


def test_the_folder_holds_weights_to_train_on_from(tmp_path: Path, rooms: Path) -> None:
    network = write_toy_checkpoint(tmp_path / "checkpoint", rooms)
    folder = tmp_path / "toy-model"
    assert main(["export", "native", "--checkpoint", str(tmp_path / "checkpoint"), "-o", str(folder)]) == 0
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for ours, theirs in zip(read_weights(folder)(image), network(image), strict=True):
            torch.testing.assert_close(ours, theirs, atol=2e-2, rtol=1e-2)
    assert (folder / "weights.safetensors").stat().st_size < 12e6

    with (folder / "weights.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    with pytest.raises(CardError, match=r"weights\.safetensors"):
        read_weights(folder)
    with pytest.raises(InputError, match="comes without weights"):
        read_weights(write_model(tmp_path / "graph-only"))


def test_int8_stays_close_and_small(tmp_path: Path, rooms: Path) -> None:
    write_toy_checkpoint(tmp_path / "checkpoint", rooms)
    folder, credits = tmp_path / "small", tmp_path / "credits.md"
    credits.write_text("chairs by somebody")
    arguments = ["export", "native", "--checkpoint", str(tmp_path / "checkpoint"), "-o", str(folder)]
    assert main([*arguments, "--precision", "int8", "--credits", str(credits)]) == 0
    card = read_card(folder)
    assert card.precision == "int8"
    assert (folder / card.graph).stat().st_size < 8e6
    assert card.parity["normals_mean"] < 0.05
    assert (folder / "CREDITS.md").read_text() == "chairs by somebody"


def test_a_model_is_exported_again_as_metric_only_when_asked(tmp_path: Path, rooms: Path) -> None:
    write_toy_checkpoint(tmp_path / "checkpoint", rooms)
    first, second = tmp_path / "first", tmp_path / "second"
    pictures = [toy_room(seed, 96, 64) for seed in range(2)]
    cards = [export_model(tmp_path / "checkpoint", first, pictures, ExportOptions(name="first", command="by hand"))]
    again = ["export", "native", "--checkpoint", str(first), "-o", str(second), "--metric"]
    assert main(again) == 2  # nothing to compare the graph on
    assert not second.exists()
    assert main([*again, "--pictures", str(rooms)]) == 0
    cards.append(read_card(second))
    depths = [card.output("depth") for card in cards]
    assert all(isinstance(depth, DepthOutput) for depth in depths)
    quantities = [(depth.quantity, depth.unit, depth.focal_scale) for depth in depths]
    assert quantities == [("relative_depth", None, None), ("metric_depth", "m", FOCAL_SCALE)]
    assert cards[1].name == "second"
    assert cards[1].source == cards[0].source
    assert (second / "README.md").read_text() == (first / "README.md").read_text()


def test_failures_leave_nothing_and_touch_nothing(
    tmp_path: Path, rooms: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_toy_checkpoint(tmp_path / "checkpoint", rooms)
    output = tmp_path / "models" / "toy"
    with pytest.raises(InputError, match="rendered images to calibrate"):
        export_model(tmp_path / "checkpoint", output, [], ExportOptions(name="toy", precision="int8"))
    assert list((tmp_path / "models").iterdir()) == []
    output.mkdir()
    (output / "mine.txt").write_text("keep")
    arguments = ["export", "native", "--checkpoint", str(tmp_path / "checkpoint"), "-o", str(output)]
    assert main(arguments) == 2
    assert (output / "mine.txt").read_text() == "keep"
    assert main(["export", "native", "--checkpoint", str(rooms), "-o", str(tmp_path / "other")]) == 2
    messages = capsys.readouterr().err
    assert "exists already" in messages
    assert "is not a checkpoint" in messages
