"""Between pictures and the space that a diffusion backbone works in."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from diffusion_perception_ros.training.diffusion.pretrained import load_network


class PixelCodec(nn.Module):
    """No autoencoder: every block of `factor` x `factor` pixels becomes one position. Exact both ways."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.downscale, self.channels = factor, 3 * factor**2

    def encode(self, pictures: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(N, 3, H, W) in [-1, 1] → (N, 3 factor², H / factor, W / factor). There is nothing random about it."""
        return F.pixel_unshuffle(pictures, self.downscale)

    def decode(self, latents: Tensor) -> Tensor:
        """The way back."""
        return F.pixel_shuffle(latents, self.downscale)


class VaeCodec(nn.Module):
    """A frozen Stable Diffusion autoencoder. Encoding takes the mean, so that the same image is the same latent,
    unless it is told to draw a sample."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae.requires_grad_(False).eval()
        config: Any = vae.config
        self.downscale, self.channels = 2 ** (len(config.block_out_channels) - 1), int(config.latent_channels)
        self._scale, self._shift = float(config.scaling_factor), float(config.shift_factor or 0.0)

    def train(self, mode: bool = True) -> VaeCodec:
        """Stays frozen."""
        return super().train(False)

    @torch.no_grad()
    def encode(self, pictures: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(N, 3, H, W) in [-1, 1] → (N, channels, H / downscale, W / downscale).

        Args:
            generator: Draws a sample of the posterior; None = its mean.
        """
        posterior = self.vae.encode(pictures).latent_dist
        latents: Tensor = posterior.mode()
        if generator is not None:  # on the CPU: the same numbers on every device
            noise = torch.randn(latents.shape, generator=generator).to(latents.device, latents.dtype)
            latents = latents + posterior.std * noise
        return (latents - self._shift) * self._scale

    def decode(self, latents: Tensor) -> Tensor:
        """The way back; gradients pass, for losses on the decoded picture."""
        pictures: Tensor = self.vae.decode(latents / self._scale + self._shift).sample
        return pictures


Codec = PixelCodec | VaeCodec


def load_vae(pretrained: str) -> VaeCodec:
    """The autoencoder of a checkpoint in the diffusers layout.

    Raises:
        InputError: there is none that can be loaded from safetensors.
    """
    return VaeCodec(load_network(AutoencoderKL, pretrained, "vae", "autoencoder"))
