"""What a training step computes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from diffusion_perception_ros.training.batches import Batch
from diffusion_perception_ros.training.config import TrainingConfig
from diffusion_perception_ros.training.learner import make_learner


class StepCost(NamedTuple):
    """Of one optimiser step; both numbers are the same on every machine."""

    parameters: int
    """Of the network, the frozen ones included."""
    flops: int
    """Floating point operations of convolutions and matrix products, forward and backward; a multiplication and an
    addition are two."""


def step_cost(config: TrainingConfig, batch: Batch) -> StepCost:
    """Counts on one training batch, with a network of its own.

    Raises:
        InputError: weights to start from that cannot be loaded or do not fit.
    """
    learner = make_learner(config, torch.ones(len(config.data.classes)))
    with FlopCounterMode(display=False) as counter:
        terms = learner.losses(learner.network, batch, torch.Generator().manual_seed(config.seed))
        torch.autograd.backward(torch.stack(list(terms.values())).sum())
    parameters = sum(parameter.numel() for parameter in learner.network.parameters())
    return StepCost(parameters, counter.get_total_flops() * config.optimiser.accumulation)
