"""Training objectives: what is noised, at which timesteps, and what the network predicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_perception_ros.training.onestep.network import UNSHUFFLE


class Conditioning(NamedTuple):
    """Inputs of the onestep network besides its weights."""

    image: Tensor
    noise: Tensor | None


@dataclass(frozen=True)
class OneStepObjective:
    """Lotus: one step from t = T, where nothing of the target is left, straight to the clean prediction (x0).

    At t = T the noisy target is pure noise. The G variant hands it to the network, so that samples differ where the
    picture leaves room; the D variant drops it and learns the conditional mean. Since t never changes its embedding is
    a constant, which the network's biases hold.
    """

    noise_channels: int = 0

    def conditioning(self, image: Tensor, generator: torch.Generator) -> Conditioning:
        """Network inputs for pictures (N, 3, H, W), randomness from the generator only."""
        if not self.noise_channels:
            return Conditioning(image, None)
        n, _, height, width = image.shape
        shape = (n, self.noise_channels, height // UNSHUFFLE, width // UNSHUFFLE)
        noise = torch.randn(shape, generator=generator, device=generator.device)
        return Conditioning(image, noise.to(image.device))
