"""GenPercept's replaceable head in training: a U-Net's features become the annotation without the autoencoder."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.families.dpt_head import DptHead
from diffusion_perception_ros.training.diffusion.backbones import UNetBackbone
from diffusion_perception_ros.training.diffusion.codec import Codec


_HEAD_FILE = "model.safetensors"
DPT_BLOCKS, DPT_DOWNSCALE = 4, 8
"""Levels of features that a DPT head takes, and pixels per position of the finest one."""


class HeadedUNet(UNetBackbone):
    """A U-Net whose up-blocks feed a DPT head in the place of its last layers and of the autoencoder's decoder."""

    def __init__(self, unet: UNet2DConditionModel, tasks: int, text: Tensor, width: int) -> None:
        """Takes the last layers away from `unet`.

        Args:
            text: (tokens, width) the constant encoder states.
            width: channels of the head.

        Raises:
            InputError: a U-Net with more or fewer than four blocks.
        """
        super().__init__(unet, tasks, text)
        widths = [int(channels) for channels in unet.config["block_out_channels"]]
        if len(widths) != DPT_BLOCKS:
            raise InputError(f"a DPT head takes a U-Net with {DPT_BLOCKS} blocks, network.config has {len(widths)}")
        unet.conv_norm_out, unet.conv_out = None, nn.Identity()
        self.head = DptHead(widths, width, channels=3)

    def forward(self, inputs: Tensor, timesteps: Tensor, task: int | Tensor) -> Tensor:
        """(N, C, h, w), (N,) and the number of the task, or (N,) numbers → (N, 3, H, W), minus the annotation."""
        features: list[Tensor] = []
        hooks = [
            block.register_forward_hook(lambda _block, _inputs, output: features.insert(0, output))
            for block in self.unet.up_blocks
        ]
        try:
            super().forward(inputs, timesteps, task)
        finally:
            for hook in hooks:
                hook.remove()
        picture: Tensor = self.head(features)
        return -picture

    def save_head(self, pipeline: Path) -> None:
        """Writes the head into a folder in the diffusers layout, under the name that GenPercept gave it.

        Raises:
            OSError: it could not be written.
        """
        folder = pipeline / "dpt_head_identity"
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in self.head.state_dict().items()}, folder / _HEAD_FILE)


class HeadCodec(nn.Module):
    """Encodes as another codec; what comes out of the network is the picture already."""

    def __init__(self, codec: Codec) -> None:
        """
        Raises:
            InputError: a codec of another size than a DPT head is made for.
        """
        super().__init__()
        if codec.downscale != DPT_DOWNSCALE:
            raise InputError(
                f"a DPT head needs positions of {DPT_DOWNSCALE} pixels, there are {codec.downscale}: without "
                f"'pretrained', set network.pixels to {DPT_DOWNSCALE}"
            )
        self.inner, self.downscale, self.channels = codec, codec.downscale, codec.channels

    def encode(self, pictures: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(N, 3, H, W) in [-1, 1] → (N, channels, H / downscale, W / downscale)."""
        return self.inner.encode(pictures, generator)

    def decode(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W), as they are."""
        return pictures
