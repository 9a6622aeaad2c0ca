"""Training objectives: what is noised, at which timesteps, what the network predicts, and how it is scored.

The trainer knows none of this: it asks the objective for the network's inputs and for the losses of its outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from diffusion_perception_ros.training.batches import Batch
from diffusion_perception_ros.training.losses import LossWeights, multi_task_losses
from diffusion_perception_ros.training.network import UNSHUFFLE, Outputs


class ObjectiveConfig(BaseModel):
    """Which objective."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["lotus_d", "lotus_g"] = "lotus_d"
    """`lotus_d`: one step from the picture alone. `lotus_g`: one step from the picture and noise."""
    noise_channels: int = Field(default=4, gt=0, le=16)
    """Only for `lotus_g`."""


class Conditioning(NamedTuple):
    """Inputs of the network besides its weights."""

    image: Tensor
    noise: Tensor | None


class Objective(Protocol):
    """What the trainer needs of an objective."""

    @property
    def noise_channels(self) -> int:
        """Noise channels of the network that fits."""

    def conditioning(self, image: Tensor, generator: torch.Generator) -> Conditioning:
        """Network inputs for pictures (N, 3, H, W), randomness from the generator only."""

    def losses(
        self, outputs: Outputs, batch: Batch, weights: LossWeights, class_weights: Tensor | None
    ) -> dict[str, Tensor]:
        """Unweighted loss terms."""


@dataclass(frozen=True)
class OneStepObjective:
    """Lotus: one step from t = T, where nothing of the target is left, straight to the clean prediction (x0).

    At t = T the noisy target is pure noise. The G variant hands it to the network, so that samples differ where the
    picture leaves room; the D variant drops it and learns the conditional mean. Since t never changes its embedding is
    a constant, which the network's biases hold.
    """

    noise_channels: int = 0

    def conditioning(self, image: Tensor, generator: torch.Generator) -> Conditioning:
        """See `Objective`."""
        if not self.noise_channels:
            return Conditioning(image, None)
        n, _, height, width = image.shape
        shape = (n, self.noise_channels, height // UNSHUFFLE, width // UNSHUFFLE)
        noise = torch.randn(shape, generator=generator, device=generator.device)
        return Conditioning(image, noise.to(image.device))

    def losses(
        self, outputs: Outputs, batch: Batch, weights: LossWeights, class_weights: Tensor | None
    ) -> dict[str, Tensor]:
        """See `Objective`."""
        return multi_task_losses(outputs, batch, weights, class_weights)


def make_objective(config: ObjectiveConfig) -> Objective:
    """The objective that a config names."""
    return OneStepObjective(config.noise_channels if config.kind == "lotus_g" else 0)
