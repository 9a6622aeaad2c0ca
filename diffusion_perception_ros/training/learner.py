"""What the trainer needs to know of the thing it trains, and the two kinds that there are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from diffusion_perception_ros.training.batches import Batch
from diffusion_perception_ros.training.config import TrainingConfig
from diffusion_perception_ros.training.estimates import Estimates


class Learner(Protocol):
    """A network with its objective. The trainer owns the loop, the optimiser, the average and the checkpoints."""

    network: nn.Module
    """What is trained. Its `state_dict` goes into checkpoints."""
    identity: dict[str, Any]
    """What makes the checkpoints of two networks interchangeable, for JSON."""

    def to(self, device: torch.device) -> None:
        """Moves what is not part of the network (a frozen autoencoder, class weights)."""

    def losses(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Weighted loss terms, to be summed; randomness from the generator (of the CPU) only.

        Args:
            network: the network, perhaps wrapped for several processes.
        """

    def estimates(self, network: nn.Module, batch: Batch) -> Estimates:
        """Predictions for a batch; of its ground truth, only what a task is prompted with may be looked at."""

    def finish(self, weights: dict[str, Tensor], run: Path) -> None:
        """Called once at the end of a run with the best weights of `network`: writes what else comes out of it.

        Raises:
            OSError: it could not be written.
        """


@runtime_checkable
class EmaTeacher(Protocol):
    """A learner that also learns from what the averaged network says."""

    def follow(self, averaged: Callable[..., Tensor]) -> None:
        """Called once before the training, with what goes through the averaged network as it then is, without
        gradients."""


def make_learner(config: TrainingConfig, class_weights: Tensor) -> Learner:
    """The learner that a config asks for; `class_weights` is (classes,), for the semantic loss.

    Raises:
        InputError: a pre-trained network that cannot be loaded or does not fit.
    """
    if config.network.kind == "onestep":
        from diffusion_perception_ros.training.onestep.learner import OneStepLearner

        return OneStepLearner(config, class_weights)
    if config.objective.kind == "joint":
        from diffusion_perception_ros.training.diffusion.joint_learner import JointLearner

        return JointLearner(config)
    from diffusion_perception_ros.training.diffusion.learner import DiffusionLearner

    return DiffusionLearner(config)
