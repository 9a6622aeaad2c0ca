"""Training of a diffusion backbone on annotation pictures, one task at a time."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.training import checkpoint as checkpoints
from diffusion_perception_ros.training.batches import Batch
from diffusion_perception_ros.training.config import DiffusionNetwork, TrainingConfig
from diffusion_perception_ros.training.diffusion.annotations import annotate, estimates_of
from diffusion_perception_ros.training.diffusion.backbones import (
    Backbone,
    DiTBackbone,
    UNetBackbone,
    empty_prompt,
    new_backbone,
    pretrained_unet,
)
from diffusion_perception_ros.training.diffusion.codec import Codec, PixelCodec, VaeCodec, load_vae
from diffusion_perception_ros.training.diffusion.experts import add_experts, mixtures_of
from diffusion_perception_ros.training.diffusion.losses import latent_loss, picture_losses
from diffusion_perception_ros.training.diffusion.objectives import make_diffusion_objective
from diffusion_perception_ros.training.estimates import Estimates
from diffusion_perception_ros.training.lora import add_lora, merge_lora, plan_adapter


class DiffusionLearner:
    """See `learner.Learner`. Every step trains one of the tasks, drawn at random."""

    def __init__(self, config: TrainingConfig) -> None:
        settings = config.network
        assert isinstance(settings, DiffusionNetwork)
        self.tasks = settings.tasks
        self._settings, self._kind = settings, config.objective.kind
        self._objective = make_diffusion_objective(config.objective)
        self._reconstructs = config.objective.kind.startswith("lotus") and config.objective.detail_preserver
        self.codec: Codec = load_vae(settings.pretrained) if settings.pretrained else PixelCodec(settings.pixels)
        self.network: nn.Module = self._backbone()
        if config.init_from is not None:
            checkpoints.load_weights(self.network, config.init_from)
        if settings.gradient_checkpointing:
            self._denoiser.enable_gradient_checkpointing()
        self.identity: dict[str, Any] = {
            **settings.model_dump(mode="json", exclude={"gradient_checkpointing", "experts"}),
            "sees_noise": self._objective.sees_noise,
        }
        if settings.experts is not None:
            self.identity["experts"] = settings.experts.model_dump(include={"count", "per_token"})
        self._check_sizes(config)
        if config.adaptation is not None:
            adapter = plan_adapter(self.network, config.adaptation.share)
            add_lora(self.network, adapter)
            self.identity[checkpoints.ADAPTER] = adapter.model_dump(mode="json")

    def _backbone(self) -> Backbone:
        channels = self.codec.channels
        inputs = channels * (2 if self._objective.sees_noise else 1)
        tasks, settings = len(self.tasks), self._settings
        if settings.pretrained:
            return pretrained_unet(settings.pretrained, inputs, tasks, empty_prompt(settings.pretrained))
        backbone = new_backbone(settings.kind, settings.config, inputs, channels, tasks)
        if settings.experts is not None:
            assert isinstance(backbone, DiTBackbone)
            if settings.experts.upcycle_from is not None:
                checkpoints.load_weights(backbone, settings.experts.upcycle_from)
            add_experts(backbone.transformer, settings.experts)
        return backbone

    @property
    def _denoiser(self) -> Any:
        network = self.network
        return network.unet if isinstance(network, UNetBackbone) else network.transformer

    def _check_sizes(self, config: TrainingConfig) -> None:
        for width, height in config.data.sizes:
            side = self.codec.downscale
            if self._settings.kind == "dit" and {width, height} != {self._denoiser.config.sample_size * side}:
                raise InputError(
                    f"data.sizes: a DiT takes {self._denoiser.config.sample_size * side} pixels square (sample_size "
                    f"{self._denoiser.config.sample_size}, {side} pixels each), not {width}x{height}"
                )

    def to(self, device: torch.device) -> None:
        """See `Learner`."""
        self.codec.to(device)

    def losses(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """See `Learner`."""
        number = int(torch.randint(0, len(self.tasks), (1,), generator=generator))
        annotation = annotate(self.tasks[number], batch)
        picture, target = self.codec.encode(batch.image), self.codec.encode(annotation.picture)
        example = self._objective.noised(picture, target, generator)
        said = network(example.inputs, example.timesteps, number)
        balance = self._expert_balance()
        if self._kind == "genpercept":
            decoded = self.codec.decode(-said.float())
            return picture_losses(self.tasks[number], decoded, annotation.picture, annotation.known) | balance
        terms = {"annotation": latent_loss(said, example.target, annotation.known), **balance}
        if self._reconstructs:
            copied = network(example.inputs, example.timesteps, len(self.tasks))
            terms["reconstruction"] = latent_loss(copied, picture, torch.ones_like(annotation.known))
        return terms

    def _expert_balance(self) -> dict[str, Tensor]:
        """The loss of uneven work among experts in the last pass; nothing for networks without."""
        imbalances = [mixture.imbalance for mixture in mixtures_of(self.network) if mixture.imbalance is not None]
        if self._settings.experts is None or not imbalances:
            return {}
        return {"experts": self._settings.experts.balance * torch.stack(imbalances).mean()}

    def estimates(self, network: nn.Module, image: Tensor, focal: Tensor) -> Estimates:
        """See `Learner`."""
        picture, result = self.codec.encode(image), Estimates()
        for number, task in enumerate(self.tasks):

            def predict(inputs: Tensor, timesteps: Tensor, number: int = number) -> Tensor:
                said: Tensor = network(inputs, timesteps, number)
                return said.float()

            latent = self._objective.sample(predict, picture, torch.Generator().manual_seed(0))
            estimate = estimates_of(task, self.codec.decode(latent))
            if estimate.depth is not None and result.depth is None:
                result.depth, result.depth_quantity = estimate.depth, estimate.depth_quantity
            result.normals = estimate.normals if result.normals is None else result.normals
            result.semantic = estimate.semantic if result.semantic is None else result.semantic
        return result

    def finish(self, weights: dict[str, Tensor], run: Path) -> None:
        """Writes `pipeline`, the network in the diffusers layout with what its pre-trained checkpoint had beside it.

        See `Learner`. Diffusers has no transformer with experts: nothing is written for one.
        """
        self.network.load_state_dict(weights)
        if checkpoints.ADAPTER in self.identity:
            merge_lora(self.network)
        if self._settings.experts is not None:
            return
        folder = run / "pipeline"
        name = "unet" if isinstance(self.network, UNetBackbone) else "transformer"
        self._denoiser.save_pretrained(folder / name)
        if isinstance(self.codec, VaeCodec):
            self.codec.vae.save_pretrained(folder / "vae")
            for part in ("text_encoder", "tokenizer", "scheduler"):
                source = Path(str(self._settings.pretrained)) / part
                if source.is_dir():
                    shutil.copytree(source, folder / part, dirs_exist_ok=True)
