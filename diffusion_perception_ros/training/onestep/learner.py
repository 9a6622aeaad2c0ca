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
from diffusion_perception_ros.training.objectives import OneStepObjective
from diffusion_perception_ros.training.onestep.adaptation import Adaptation
from diffusion_perception_ros.training.onestep.encoder import load_imagenet_weights
from diffusion_perception_ros.training.onestep.losses import multi_task_losses
from diffusion_perception_ros.training.onestep.network import (
    NetworkConfig,
    NetworkOutputs,
    OneStepNet,
    refinement_parameters,
)
from diffusion_perception_ros.training.onestep.weights import weights_of


class OneStepLearner:
    """See `learner.Learner`."""

    def __init__(self, config: TrainingConfig, class_weights: Tensor) -> None:
        assert config.network.kind == "onestep"
        self._objective = OneStepObjective(
            config.objective.noise_channels if config.objective.kind == "lotus_g" else 0
        )
        self._weights, self._learnt, self.class_weights = config.losses, config.losses, class_weights
        settings = NetworkConfig(
            size=config.network.size,
            noise_channels=self._objective.noise_channels,
            classes=len(config.data.classes),
            encoder=config.network.encoder,
            join=config.network.join,
        )
        self.identity: dict[str, Any] = settings.model_dump()
        network = OneStepNet(settings)
        self.network: nn.Module = network
        may_lack = refinement_parameters(network)
        may_exceed: tuple[str, ...] = ()
        if network.pretrained is not None and settings.encoder != "plain":
            network.frozen_norm = config.network.encoder_norm == "frozen"
            if not _has_encoder(config.init_from):
                load_imagenet_weights(network.pretrained, settings.encoder)
                may_lack |= {name for name in network.state_dict() if name.startswith(("pretrained.", "adapters."))}
                may_exceed = ("stem.", "encoder.")  # what the pre-trained encoder takes the place of
        if config.init_from is not None:
            checkpoints.load_weights(network, _weights_in(config.init_from), may_lack, may_exceed)
        for name, parameter in network.named_parameters():
            if config.optimiser.rate_of(name) == 0:
                parameter.requires_grad_(False)
        self._adaptation = Adaptation(network, config.adaptation) if config.adaptation else None
        if self._adaptation is not None:
            self.identity[checkpoints.ADAPTER] = self._adaptation.adapter.model_dump(mode="json")
            self._learnt = self._adaptation.learnt(config.losses)

    def to(self, device: torch.device) -> None:
        """See `Learner`."""
        self.class_weights = self.class_weights.to(device)
        if self._adaptation is not None:
            self._adaptation.to(device)

    def losses(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """See `Learner`."""
        inputs = self._objective.conditioning(batch.image, generator)
        outputs: NetworkOutputs = network(*inputs)
        terms = multi_task_losses(outputs, batch, self._learnt, self.class_weights)
        weighted = {name: getattr(self._learnt, name) * value for name, value in terms.items()}
        if self._adaptation is not None:
            weighted |= self._adaptation.kept(outputs, *inputs, self._weights)
        return weighted

    def estimates(self, network: nn.Module, batch: Batch) -> Estimates:
        """See `Learner`."""
        generator = torch.Generator().manual_seed(0)  # the same noise for every picture, as the exported model has it
        outputs: NetworkOutputs = network(*self._objective.conditioning(batch.image, generator))
        return Estimates(
            depth=torch.exp(outputs.log_depth[:, 0].float()) * batch.focal[:, None, None],
            normals=outputs.normals.float(),
            semantic=outputs.semantic.argmax(1),
        )

    def finish(self, weights: dict[str, Tensor], run: Path) -> None:
        """Nothing: `diffusion-perception export native` makes the model folder."""


def _weights_in(start: Path) -> Path:
    return weights_of(start) if start.is_dir() else start


def _has_encoder(start: Path | None) -> bool:
    """Whether the weights to start from have a pre-trained encoder already."""
    return start is not None and any(
        name.startswith("pretrained.") for name in checkpoints.load_tensors(_weights_in(start))
    )
