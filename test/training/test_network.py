"""The one-step network: shapes, sizes, determinism at inference."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.training.checkpoint import load_weights
from diffusion_perception_ros.training.config import TrainingConfig
from diffusion_perception_ros.training.onestep.deployed import DeployedNet
from diffusion_perception_ros.training.onestep.learner import OneStepLearner
from diffusion_perception_ros.training.onestep.network import (
    NetworkConfig,
    OneStepNet,
    refinement_parameters,
)


@pytest.mark.parametrize("height", [32, 96])
@pytest.mark.parametrize("noise_channels", [0, 4])
def test_outputs_have_the_sizes_of_the_contract(height: int, noise_channels: int) -> None:
    network = OneStepNet(NetworkConfig(classes=5, noise_channels=noise_channels)).eval()
    noise = torch.randn(2, noise_channels, height // 4, 16) if noise_channels else None
    depth, confidence, normals, semantic, offsets = DeployedNet(network)(torch.randn(2, 3, height, 64), noise)
    assert depth.shape == confidence.shape == (2, 1, height, 64)
    assert normals.shape == (2, 3, height, 64)
    assert semantic.shape == (2, 5, height // 2, 32)
    assert offsets.shape == (2, 2, height // 2, 32)
    for bounded in (depth, confidence):
        assert bounded.min() >= 0
        assert bounded.max() <= 1


@pytest.mark.parametrize(("size", "low", "high"), [("S", 4e6, 7e6), ("M", 10e6, 16e6), ("L", 40e6, 80e6)])
def test_sizes(size: str, low: float, high: float) -> None:
    with torch.device("meta"):
        network = OneStepNet(NetworkConfig(size=size, classes=32))
    assert low < sum(parameter.numel() for parameter in network.parameters()) < high


def contiguous(network: OneStepNet) -> dict[str, torch.Tensor]:
    return {name: value.contiguous() for name, value in network.state_dict().items()}


def test_m_begins_where_s_ended(tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = OneStepNet(NetworkConfig(classes=5)).eval()
    save_file(contiguous(small), tmp_path / "small.safetensors")
    config = {
        "name": "grown",
        "network": {"size": "M"},
        "init_from": tmp_path / "small.safetensors",
        "data": {"train": "a", "validation": "b", "classes": list("abcde")},
        "run": {"max_steps": 1},
    }
    learner = OneStepLearner(TrainingConfig.model_validate(config), torch.ones(5))
    picture = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for a, b in zip(learner.network.eval()(picture), small(picture), strict=True):
            torch.testing.assert_close(a, b)


def test_a_network_of_other_channels_cannot_start_from_s(tmp_path: Path) -> None:
    save_file(contiguous(OneStepNet(NetworkConfig(classes=5))), tmp_path / "small.safetensors")
    large = OneStepNet(NetworkConfig(size="L", classes=5))
    with pytest.raises(InputError, match="another network"):
        load_weights(large, tmp_path / "small.safetensors", may_lack=refinement_parameters(large))


def test_inference_does_not_depend_on_the_rest_of_the_batch() -> None:
    network = OneStepNet(NetworkConfig(classes=5)).eval()
    pictures = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        together, alone = network(pictures), network(pictures[:1])
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[:1], b, atol=1e-4, rtol=1e-4)


def test_an_untrained_network_shows_no_checkerboard() -> None:
    torch.manual_seed(0)
    outputs = OneStepNet(NetworkConfig(classes=5)).eval()(torch.randn(1, 3, 64, 64))
    for values, block in ((outputs.normals, 4), (outputs.semantic, 2)):
        inside = values.unfold(2, block, block).unfold(3, block, block)  # (1, C, h, w, block, block)
        assert inside.std((-1, -2)).max() < 1e-5


def test_noise_changes_the_answer_of_the_stochastic_network() -> None:
    network = OneStepNet(NetworkConfig(classes=5, noise_channels=4)).eval()
    picture = torch.randn(1, 3, 64, 64)
    one, two = (network(picture, torch.randn(1, 4, 16, 16)).normals for _ in range(2))
    assert (one - two).abs().max() > 1e-4
