"""Training of a network that perceives and creates (`joint`), alone or improving itself (`self_improvement`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.training import checkpoint as checkpoints
from diffusion_perception_ros.training.batches import Batch
from diffusion_perception_ros.training.config import DiffusionNetwork, TrainingConfig
from diffusion_perception_ros.training.diffusion.annotations import estimates_of
from diffusion_perception_ros.training.diffusion.backbones import Backbone, check_sizes, new_backbone, save_backbone
from diffusion_perception_ros.training.diffusion.codec import PixelCodec
from diffusion_perception_ros.training.diffusion.joint import (
    JointDiffusion,
    JointSpace,
    Network,
    Pairs,
    depth_of,
)
from diffusion_perception_ros.training.diffusion.losses import latent_loss
from diffusion_perception_ros.training.estimates import Estimates


Labels = Literal["perceived", "generated"]
"""Of a created picture. `perceived`: what the network perceives in it (the paper). `generated`: the annotations that
came out together with it."""
CREATION_STEPS = 10
"""From pure noise, where the config does not say."""
_WEIGHTS = {"depth": 4.0}
"""The logarithm of the depths of one place takes up about half of what a colour does."""


class Created(NamedTuple):
    """N new pairs, decoded."""

    picture: Tensor
    """(N, 3, H, W), about [-1, 1]."""
    annotations: dict[str, Tensor]
    """Task → (N, 3, H, W), about [-1, 1]."""


class JointLearner:
    """See `learner.Learner`. One network for the picture's latent and those of all its annotations."""

    def __init__(self, config: TrainingConfig) -> None:
        settings = config.network
        assert isinstance(settings, DiffusionNetwork)
        self.tasks: tuple[str, ...] = settings.tasks
        self.codec = PixelCodec(settings.pixels)
        self.steps = config.objective.num_inference_steps or CREATION_STEPS
        self._perception_share = config.objective.perception_share
        self._improvement = config.self_improvement
        self._space, self._diffusion = JointSpace(self.codec, self.tasks), JointDiffusion(self.codec)
        channels = self.codec.channels * (1 + len(self.tasks))
        backbone = new_backbone(settings.kind, settings.config, channels, channels, tasks=1)
        self.network: nn.Module = backbone
        if config.init_from is not None:
            checkpoints.load_weights(backbone, config.init_from)
        if settings.gradient_checkpointing:
            backbone.denoiser.enable_gradient_checkpointing()
        check_sizes(backbone, config.data.sizes, self.codec.downscale)
        self.identity: dict[str, Any] = {
            **settings.model_dump(mode="json", exclude={"gradient_checkpointing", "experts"}),
            "joint": True,
        }
        self._creation_copy: Network | None = None

    def to(self, device: torch.device) -> None:
        """See `Learner`."""
        self.codec.to(device)

    def follow(self, averaged: Network) -> None:
        """See `learner.EmaTeacher`: the averaged network is the creation copy."""
        self._creation_copy = averaged

    def losses(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """See `Learner`. Created pairs teach perception only: a network that learnt to create from what it created
        would drift away from the real pictures."""
        pairs = self._space.encode(batch)
        perceives = torch.rand(len(batch.image), generator=generator) < self._perception_share
        if self._improvement is not None:
            created = self._improvement.created_rows(len(perceives))
            pairs = self._partly_created(self._creation_copy or network, pairs, created, generator)
            perceives[:created] = True
        example = self._diffusion.example(pairs, perceives, generator)
        said: Tensor = network(*example)
        parts = said.chunk(1 + len(self.tasks), 1)
        truths = pairs.picture, *pairs.annotations.chunk(len(self.tasks), 1)
        creates = ~perceives.to(said.device)[:, None, None, None].expand(-1, 1, *batch.image.shape[2:])
        terms = {"picture": latent_loss(parts[0], truths[0], creates)}
        for number, task in enumerate(self.tasks):
            known = pairs.known[:, number : number + 1]
            loss = latent_loss(parts[1 + number], truths[1 + number], known)
            terms[task] = _WEIGHTS.get(task, 1.0) * loss
        return terms

    @torch.no_grad()
    def _partly_created(self, network: Network, pairs: Pairs, count: int, generator: torch.Generator) -> Pairs:
        """The pairs with the first `count` of them replaced by what a network makes of them."""
        assert self._improvement is not None
        rows = torch.arange(count, device=pairs.picture.device)
        new = self.create(network, pairs.rows(rows), self._improvement.noise_level, "perceived", generator)
        return Pairs(*(torch.cat([made, real[count:]]) for made, real in zip(new, pairs, strict=True)))

    def create(
        self, network: Network, pairs: Pairs, noise_level: float, labels: Labels, generator: torch.Generator
    ) -> Pairs:
        """New pairs out of given ones; see `JointDiffusion.create`. All of their pixels are known."""
        clean = torch.cat([pairs.picture, pairs.annotations], 1)
        made = self._diffusion.create(network, clean, noise_level, self.steps, generator)
        picture, annotations = made[:, : self.codec.channels], made[:, self.codec.channels :]
        if labels == "perceived":
            annotations = self._diffusion.perceive(network, picture, annotations.shape[1])
        return Pairs(picture, annotations, torch.ones_like(pairs.known))

    def encode(self, batch: Batch) -> Pairs:
        """See `JointSpace.encode`."""
        return self._space.encode(batch)

    def nothing(self, count: int, size: tuple[int, int]) -> Pairs:
        """What stands for real pairs where none are needed: of pure noise. `size` is (width, height)."""
        width, height = size
        blank = self.codec.encode(torch.zeros(count, 3, height, width))
        known = torch.zeros(count, len(self.tasks), height, width, dtype=torch.bool)
        return Pairs(blank, blank.repeat(1, len(self.tasks), 1, 1), known)

    @torch.no_grad()
    def create_pictures(
        self, network: Network, pairs: Pairs, noise_level: float, labels: Labels, generator: torch.Generator
    ) -> Created:
        """New pairs out of given ones, as pictures.

        Raises:
            InputError: the network gives numbers that are not finite.
        """
        new = self.create(network, pairs, noise_level, labels, generator)
        if not all(torch.isfinite(latents).all() for latents in new[:2]):
            raise InputError("the network creates values that are not finite: train it again, more slowly")
        (picture,), annotations = self._space.decode(new.picture), self._space.decode(new.annotations)
        return Created(picture, dict(zip(self.tasks, annotations, strict=True)))

    def estimates(self, network: nn.Module, batch: Batch) -> Estimates:
        """See `Learner`."""
        picture, result = self.codec.encode(batch.image), Estimates()
        latents = self._diffusion.perceive(network, picture, self.codec.channels * len(self.tasks))
        for task, drawing in zip(self.tasks, self._space.decode(latents), strict=True):
            if task == "depth":
                found = depth_of(drawing).clamp(max=1e3)
                result.add(Estimates(depth=found, depth_quantity="relative_depth"))
            else:
                result.add(estimates_of(task, drawing))
        return result

    def finish(self, weights: dict[str, Tensor], run: Path) -> None:
        """Writes `pipeline`, the network in the diffusers layout. See `Learner`."""
        self.network.load_state_dict(weights)
        assert isinstance(self.network, Backbone)
        save_backbone(self.network, run / "pipeline")


def load_learner(checkpoint: checkpoints.Checkpoint) -> tuple[JointLearner, TrainingConfig]:
    """The averaged network of a checkpoint, ready to perceive and to create, and the config of its run.

    Raises:
        InputError: weights are missing, damaged, or of another network.
    """
    started = {"init_from": None, "self_improvement": None}  # what the run began with is part of the weights
    config = TrainingConfig.model_validate({**checkpoint.state["config"], **started})
    learner = JointLearner(config)
    checkpoints.load_weights(learner.network, checkpoint.folder / checkpoints.AVERAGED)
    learner.network.requires_grad_(False).eval()
    return learner, config
