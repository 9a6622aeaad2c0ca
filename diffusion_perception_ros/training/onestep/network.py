"""`OneStepNet`: one forward pass in the pixel domain gives depth, confidence, normals, semantics and instance cues.

The network is the denoiser of a one-step, x0-predicting diffusion model without a VAE: the picture is pixel-unshuffled
instead of encoded, the timestep is fixed (so that its embedding folds into the biases), and the noise is either absent
(Lotus-D) or a few input channels (Lotus-G). It is a residual U-Net at 1/4 to 1/32 of the picture's resolution with
attention at 1/32 only; BatchNorm makes it free of batch statistics, and foldable into the convolutions, at inference.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from diffusion_perception_ros.training.onestep.encoder import EfficientNetLite
from diffusion_perception_ros.training.settings.names import EncoderName


UNSHUFFLE = 4
"""Pixels of the picture per pixel of the first level."""
"""Both sides of a picture must be multiples of this."""
OFFSET_SCALE = 32.0
"""Pixels of the network input per unit of the instance offsets."""
FOCAL_SCALE = 0.625
"""z / f_px, in metres per pixel, of a canonical depth of 1: at 256 pixels and 90° (f = 128) 80 m fit."""
LOG_DEPTH_CENTRE = math.log(2.5 / 220.0)
"""Typical log canonical depth of a room, where an untrained network starts."""
LOG_SCALE_RANGE = (-5.0, 1.5)
"""Of the log of the Laplace scale."""


class Width(NamedTuple):
    """Channels per level (1/4, 1/8, 1/16, 1/32) and of the heads, blocks per level."""

    channels: tuple[int, int, int, int]
    encoder_blocks: tuple[int, int, int, int]
    decoder_blocks: int
    head: int
    encoder_refinements: tuple[int, int, int, int] = (0, 0, 0, 0)
    """`_Refinement` blocks after the others of a level."""
    decoder_refinements: int = 0


SIZES: dict[str, Width] = {
    "S": Width((48, 96, 160, 224), (2, 2, 2, 2), 1, 96),
    "M": Width((48, 96, 160, 224), (2, 2, 2, 2), 1, 96, (0, 2, 4, 4), 1),
    "L": Width((96, 192, 384, 512), (2, 2, 2, 2), 1, 192, (1, 2, 4, 4), 1),
}
"""M is S with refinements, which start as identities: with `init_from` an S, it begins where that one ended."""


class NetworkConfig(BaseModel):
    """What makes two checkpoints interchangeable."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: Literal["S", "M", "L"] = "S"
    noise_channels: int = Field(default=0, ge=0, le=16)
    """0: deterministic (Lotus-D). Otherwise the noise input has this many channels at 1/4 resolution (Lotus-G)."""
    classes: int = Field(gt=0, le=255)
    """Semantic classes."""
    encoder: Literal["plain"] | EncoderName = "plain"
    """`plain`: residual blocks, from random weights. Others: `encoder.py`, from ImageNet weights."""
    join: Literal["add", "replace"] = "add"
    """What a pre-trained encoder is to the plain one: its features are added at every level, or take its place."""


class NetworkOutputs(NamedTuple):
    """What the network says about N pictures of H x W pixels."""

    log_depth: Tensor
    """(N, 1, H, W) log of the canonical depth, metres / focal length in pixels of the network input."""
    log_scale: Tensor
    """(N, 1, H, W) log of the Laplace scale b of the error of `log_depth`, the picture's mean error taken off."""
    normals: Tensor
    """(N, 3, H, W) optical frame, length not normalised."""
    semantic: Tensor
    """(N, classes, H/2, W/2) logits."""
    offsets: Tensor
    """(N, 2, H/2, W/2) (right, down) to the centre of the pixel's object, in units of `OFFSET_SCALE` pixels."""


class OneStepNet(nn.Module):
    """See the module's docstring. Pictures are (N, 3, H, W) in [-1, 1], H and W multiples of 32."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        width = SIZES[config.size]
        channels = width.channels
        self.frozen_norm = False
        self.pretrained: EfficientNetLite | None = None
        if config.encoder != "plain":
            self.pretrained = EfficientNetLite(config.encoder)
            self.adapters = nn.ModuleList(
                _Adapter(theirs, ours, zero=config.join == "add")
                for theirs, ours in zip(self.pretrained.channels, channels, strict=True)
            )
        if config.encoder == "plain" or config.join == "add":
            self.stem = nn.Conv2d(3 * UNSHUFFLE**2 + config.noise_channels, channels[0], 3, padding=1)
            self.encoder = nn.ModuleList(_encoder_levels(width, beside=self.pretrained is not None))
        self.decoder = nn.ModuleList(
            _DecoderLevel(channels[level + 1], channels[level], width.decoder_blocks, width.decoder_refinements)
            for level in (2, 1, 0)
        )
        self.geometry = _Head(channels[0], width.head, 5, UNSHUFFLE, kernel=3)
        self.labelling = _Head(channels[0], width.head, config.classes + 2, 2, kernel=1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs

    def train(self, mode: bool = True) -> OneStepNet:
        """A pre-trained encoder keeps the statistics of its BatchNorm while `frozen_norm` is set."""
        super().train(mode)
        if self.pretrained is not None and self.frozen_norm:
            self.pretrained.eval()
        return self

    def decoded(self, image: Tensor, noise: Tensor | None = None) -> Tensor:
        """(N, channels[0], H/4, W/4), what the heads start from."""
        skips = self._features(image, noise)
        x = skips.pop()
        for level in self.decoder:
            x = level(x, skips.pop())
        return x

    def forward(self, image: Tensor, noise: Tensor | None = None) -> NetworkOutputs:
        """One pass. `noise` is (N, noise_channels, H/4, W/4), needed exactly by networks that have noise channels."""
        x = self.decoded(image, noise)
        geometry, labelling = self.geometry(x), self.labelling(x)
        return NetworkOutputs(
            log_depth=geometry[:, :1] + LOG_DEPTH_CENTRE,
            log_scale=geometry[:, 1:2].clamp(*LOG_SCALE_RANGE),
            normals=geometry[:, 2:],
            semantic=labelling[:, :-2],
            offsets=labelling[:, -2:],
        )

    def _features(self, image: Tensor, noise: Tensor | None) -> list[Tensor]:
        """At 1/4 to 1/32."""
        added: list[Tensor] = []
        if self.pretrained is not None:
            added = [adapt(x) for adapt, x in zip(self.adapters, self.pretrained(image), strict=True)]
            if self.config.join == "replace":
                return added
        x = F.pixel_unshuffle(image, UNSHUFFLE)
        if noise is not None:
            x = torch.cat([x, noise.to(x.dtype)], 1)
        x = self.stem(x)
        features = []
        for number, level in enumerate(self.encoder):
            x = level(x, added[number]) if added else level(x)
            features.append(x)
        return features


class _Adapter(nn.Sequential):
    """From a pre-trained encoder's channels to the decoder's; `zero` at first, a trained network stays as it is.

    The features, whose sizes differ tenfold between levels, are normalised first; the exporter folds that away.
    """

    def __init__(self, inputs: int, outputs: int, zero: bool) -> None:
        super().__init__(nn.BatchNorm2d(inputs, affine=False), nn.Conv2d(inputs, outputs, 1))
        if zero:
            nn.init.zeros_(self[1].weight)  # type: ignore[arg-type]  # a module's attributes are untyped
            nn.init.zeros_(self[1].bias)  # type: ignore[arg-type]


class _Residual(nn.Module):
    """Two 3x3 convolutions with BatchNorm beside a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.SiLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.body(x) + self.shortcut(x))


class _Refinement(nn.Module):
    """A residual that is zero at first, so that a trained network can be made deeper without forgetting anything."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        nn.init.zeros_(self.body[-1].weight)  # type: ignore[arg-type]  # a module's attributes are untyped
        nn.init.zeros_(self.body[-1].bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.body(x)
        return result


class _Attention(nn.Module):
    """Residual self-attention over all pixels of a level."""

    heads = 4

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        qkv = self.qkv(self.norm(x)).reshape(n, 3, self.heads, c // self.heads, h * w).transpose(3, 4)
        attended = F.scaled_dot_product_attention(qkv[:, 0], qkv[:, 1], qkv[:, 2])  # (n, heads, h*w, c/heads)
        result: Tensor = x + self.project(attended.transpose(2, 3).reshape(n, c, h, w))
        return result


class _EncoderLevel(nn.Sequential):
    """Halves the resolution (all but the first level, whose first module is a block already), then refines."""

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """`added` is of the level's resolution: features of a pre-trained encoder, which join before the blocks.

        A level is always called as a whole, because with fully sharded data parallelism its call gathers its weights.
        """
        modules = list(self)
        if isinstance(modules[0], nn.Conv2d):
            x = modules.pop(0)(x)
        if added is not None:
            x = x + added
        for module in modules:
            x = module(x)
        return x


def _encoder_levels(width: Width, beside: bool = False) -> list[_EncoderLevel]:
    """
    Args:
        beside: a pre-trained encoder, whose features take the place of the refinements of the two coarse levels.
    """
    levels = []
    finer = width.encoder_refinements[:2]
    depths = zip(
        width.channels, width.encoder_blocks, (*finer, 0, 0) if beside else width.encoder_refinements, strict=True
    )
    for level, (channels, blocks, refinements) in enumerate(depths):
        modules: list[nn.Module] = []
        if level:
            modules.append(nn.Conv2d(width.channels[level - 1], channels, 3, stride=2, padding=1))
        for _ in range(blocks):
            modules.append(_Residual(channels, channels))
            if level == len(width.channels) - 1:
                modules.append(_Attention(channels))
        modules.extend(_Refinement(channels) for _ in range(refinements))
        levels.append(_EncoderLevel(*modules))
    return levels


class _DecoderLevel(nn.Module):
    """Upsamples, joins the encoder's features of the same resolution, refines."""

    def __init__(self, inputs: int, outputs: int, blocks: int, refinements: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(inputs, outputs, 1)
        self.blocks = nn.Sequential(
            _Residual(2 * outputs, outputs),
            *(_Residual(outputs, outputs) for _ in range(blocks - 1)),
            *(_Refinement(outputs) for _ in range(refinements)),
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = F.interpolate(self.reduce(x), scale_factor=2.0, mode="nearest")
        result: Tensor = self.blocks(torch.cat([x, skip], 1))
        return result


class _Head(nn.Module):
    """Two convolutions and a pixel shuffle by `factor`."""

    def __init__(self, inputs: int, hidden: int, outputs: int, factor: int, kernel: int) -> None:
        super().__init__()
        self.hidden = nn.Conv2d(inputs, hidden, 3, padding=1)
        self.out = nn.Conv2d(hidden, outputs * factor**2, kernel, padding=kernel // 2)
        self.factor = factor
        with torch.no_grad():  # ICNR: all sub-pixels start alike, so that no checkerboard has to be unlearnt
            for values in (self.out.weight, self.out.bias):
                assert values is not None
                values.copy_(values[:: factor**2].repeat_interleave(factor**2, dim=0) * 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.out(F.silu(self.hidden(x))), self.factor)


def refinement_parameters(network: nn.Module) -> set[str]:
    """Names, in the state dict, of what a smaller network of the same channels does not have."""
    return {
        f"{name}.{key}"
        for name, module in network.named_modules()
        if isinstance(module, _Refinement)
        for key in module.state_dict()
    }
