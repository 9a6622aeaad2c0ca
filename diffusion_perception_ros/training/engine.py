"""The network of a run with its optimiser and its average, on one process or many: accelerate, or FSDP2 shards."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn

from diffusion_perception_ros.training import checkpoint as checkpoints
from diffusion_perception_ros.training.config import OptimiserConfig, TrainingConfig
from diffusion_perception_ros.training.muon import Muon
from diffusion_perception_ros.training.precision import has_bf16
from diffusion_perception_ros.training.sharding import gathered, local, shard, whole


class TrainingEngine:
    """Gradients, updates and averages; which process does what, in which precision, is decided here.

    `start` gives it the network; nothing but `accelerator`, `device` and `agreed` works before.
    """

    network: nn.Module
    """What is trained, perhaps wrapped for several processes."""
    scored: nn.Module
    """A whole copy with the averaged weights, in evaluation mode. Up to date after `refresh_scored`."""

    def __init__(self, config: TrainingConfig) -> None:
        self._run, self._settings = config.run, config.optimiser
        if self._run.threads:
            torch.set_num_threads(self._run.threads)
        self.bf16 = has_bf16() if self._run.precision == "auto" else self._run.precision == "bf16"
        self.accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(),
            mixed_precision="bf16" if self.bf16 else "no",
            gradient_accumulation_steps=self._settings.accumulation,
        )
        self.device = self.accelerator.device

    def start(self, network: nn.Module, checkpoint: Path | None = None) -> None:
        """Takes up a network, with the weights and the optimiser's moments of a checkpoint folder if there is one.

        Raises:
            InputError: a checkpoint that is damaged or of another network.
        """
        self.scored = copy.deepcopy(network).to(self.device).requires_grad_(False).eval()
        if checkpoint is not None:
            checkpoints.load_weights(network, checkpoint / checkpoints.WEIGHTS)
            checkpoints.load_weights(self.scored, checkpoint / checkpoints.AVERAGED)
        self._averaged = self.scored
        if self._run.compile:
            network.compile(dynamic=False)  # the copy to be scored stays as it is: it sees pictures of any size
        if self._run.fully_shard and self.accelerator.num_processes > 1:
            self._shard(network)
        else:
            self.network, self.optimiser = self.accelerator.prepare(network, _optimiser(network, self._settings))
        if checkpoint is not None:
            moments = checkpoints.load_tensors(checkpoint / checkpoints.OPTIMISER)
            checkpoints.restore_optimiser(self.optimiser.optimizer, moments)

    def _shard(self, network: nn.Module) -> None:
        """The averaged weights are sharded like the trained ones, and scored in a whole copy."""
        self._averaged = copy.deepcopy(self.scored)
        for copied in (network.to(self.device), self._averaged):
            shard(copied, self.bf16)
        self.network = network
        self.optimiser = self.accelerator.prepare(_optimiser(network, self._settings))

    @torch.no_grad()
    def averaged(self, *inputs: Tensor) -> Tensor:
        """What the averaged network says."""
        with self.accelerator.autocast():
            said: Tensor = self._averaged(*inputs)
        return said

    @property
    def _plain_network(self) -> nn.Module:
        network: nn.Module = self.accelerator.unwrap_model(self.network)
        return network

    def accumulating(self) -> AbstractContextManager[None]:
        """Around `backward` and `update` of one batch."""
        context: AbstractContextManager[None] = self.accelerator.accumulate(self.network)
        return context

    def backward(self, loss: Tensor) -> Tensor | None:
        """Adds the gradients of a loss.

        Returns:
            Their norm before it was clipped, if this batch completes a step; None if more batches are to follow.
        """
        self.accelerator.backward(loss)
        if not self.accelerator.sync_gradients:
            return None
        norm = self.accelerator.clip_grad_norm_(self.network.parameters(), self._settings.clip_norm)
        return whole(norm)

    def update(self, learning_rate: float) -> None:
        """One step of the optimiser, if the gradients of all its batches are there."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate * group["rate"]
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)

    @torch.no_grad()
    def average(self, decay: float) -> None:
        """Moves the averaged weights towards the trained ones, by 1 - `decay` of the way."""
        averaged, current = self._averaged.state_dict(), self._plain_network.state_dict()
        floats = [name for name, value in averaged.items() if value.is_floating_point()]
        torch._foreach_lerp_(
            [local(averaged[name]) for name in floats], [local(current[name]) for name in floats], 1 - decay
        )

    def refresh_scored(self) -> None:
        """Gathers the averaged weights on the first process. All processes must call it."""
        if self._averaged is not self.scored:
            weights = gathered(self._averaged.state_dict(), keep=self.accelerator.is_main_process)
            if weights:
                self.scored.load_state_dict(weights)

    def files(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint keeps, on the first process; empty on the others. All processes must call it."""
        parts = {
            checkpoints.WEIGHTS: self._plain_network.state_dict(),
            checkpoints.AVERAGED: self._averaged.state_dict(),
            checkpoints.OPTIMISER: checkpoints.optimiser_tensors(self.optimiser.optimizer),
        }
        return {name: gathered(tensors, self.accelerator.is_main_process) for name, tensors in parts.items()}

    def agreed(self, values: Tensor) -> Tensor:
        """The first process's values, for all: what they decide on must not differ."""
        shared: Tensor = broadcast(values.to(self.device))
        return shared


def _optimiser(network: nn.Module, settings: OptimiserConfig) -> torch.optim.Optimizer:
    make = Muon if settings.kind == "muon" else partial(torch.optim.AdamW, fused=True)
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(settings.rate_of(name), []).append(parameter)
    return make(
        [{"params": parameters, "rate": rate} for rate, parameters in groups.items()],
        lr=settings.learning_rate,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
    )
