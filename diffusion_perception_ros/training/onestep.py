"""Training of `OneStepNet`: all tasks in one pass, in the pixel domain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_perception_ros.training import checkpoint as checkpoints
from diffusion_perception_ros.training.batches import Batch
from diffusion_perception_ros.training.config import TrainingConfig
from diffusion_perception_ros.training.estimates import Estimates
from diffusion_perception_ros.training.losses import multi_task_losses
from diffusion_perception_ros.training.network import NetworkConfig, OneStepNet, Outputs
from diffusion_perception_ros.training.objectives import OneStepObjective
from diffusion_perception_ros.training.weights import weights_of
from diffusion_perception_ros.world.labels import LABELS


class OneStepLearner:
    """See `learner.Learner`."""

    def __init__(self, config: TrainingConfig, class_weights: Tensor) -> None:
        assert config.network.kind == "onestep"
        self._objective = OneStepObjective(
            config.objective.noise_channels if config.objective.kind == "lotus_g" else 0
        )
        self._weights, self.class_weights = config.losses, class_weights
        settings = NetworkConfig(
            size=config.network.size, noise_channels=self._objective.noise_channels, classes=len(LABELS)
        )
        self.identity: dict[str, Any] = settings.model_dump()
        self.network: nn.Module = OneStepNet(settings)
        if config.init_from is not None:
            start = config.init_from
            checkpoints.load_weights(self.network, weights_of(start) if start.is_dir() else start)

    def to(self, device: torch.device) -> None:
        """See `Learner`."""
        self.class_weights = self.class_weights.to(device)

    def losses(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """See `Learner`."""
        outputs: Outputs = network(*self._objective.conditioning(batch.image, generator))
        terms = multi_task_losses(outputs, batch, self._weights, self.class_weights)
        return {name: getattr(self._weights, name) * value for name, value in terms.items()}

    def estimates(self, network: nn.Module, image: Tensor, focal: Tensor) -> Estimates:
        """See `Learner`."""
        generator = torch.Generator().manual_seed(0)  # the same noise for every picture, as the exported model has it
        outputs: Outputs = network(*self._objective.conditioning(image, generator))
        return Estimates(
            depth=torch.exp(outputs.log_depth[:, 0].float()) * focal[:, None, None],
            normals=outputs.normals.float(),
            semantic=outputs.semantic.argmax(1),
        )

    def finish(self, weights: dict[str, Tensor], run: Path) -> None:
        """Nothing: `diffusion-perception export native` makes the model folder."""
