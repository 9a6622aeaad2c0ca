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
from diffusion_perception_ros.training.diffusion.annotations import (
    DRAWN,
    Annotation,
    annotate,
    can_annotate,
    emphasis,
    estimates_of,
)
from diffusion_perception_ros.training.diffusion.backbones import (
    Backbone,
    DiTBackbone,
    UNetBackbone,
    check_sizes,
    empty_prompt,
    new_backbone,
    pretrained_unet,
    save_backbone,
)
from diffusion_perception_ros.training.diffusion.codec import Codec, PixelCodec, VaeCodec, load_vae
from diffusion_perception_ros.training.diffusion.drawings import Colouring
from diffusion_perception_ros.training.diffusion.experts import add_experts, mixtures_of
from diffusion_perception_ros.training.diffusion.heads import HeadCodec, HeadedUNet
from diffusion_perception_ros.training.diffusion.losses import end_to_end_losses, latent_loss, picture_losses
from diffusion_perception_ros.training.diffusion.objectives import make_diffusion_objective
from diffusion_perception_ros.training.diffusion.prompts import CONDITIONED, PromptTensors, condition, draw_prompts
from diffusion_perception_ros.training.estimates import Estimates
from diffusion_perception_ros.training.lora import add_lora, merge_lora, plan_adapter


_NOT_OF_THE_NETWORK = {"gradient_checkpointing", "experts", "head", "head_width", "posterior"}
"""Settings that say how it is trained, or that its identity names in another way."""


class DiffusionLearner:
    """See `learner.Learner`. Every picture of a batch trains one of the tasks, drawn at random."""

    def __init__(self, config: TrainingConfig) -> None:
        settings = config.network
        assert isinstance(settings, DiffusionNetwork)
        self.tasks = settings.tasks
        self._settings = settings
        self.objective = make_diffusion_objective(config.objective, in_pixels=settings.pretrained is None)
        self._conditioned = bool(CONDITIONED & set(settings.tasks))
        self._colouring: Colouring = "random" if self.objective.draws_samples else "position"
        self._reconstructs = config.objective.kind.startswith("lotus") and config.objective.detail_preserver
        self._kind = config.objective.kind
        self._sees_picture = self._kind == "e2e_ft" or (
            self._kind == "genpercept" and config.objective.loss == "picture"
        )
        codec: Codec = load_vae(settings.pretrained) if settings.pretrained else PixelCodec(settings.pixels)
        self.codec = HeadCodec(codec) if settings.head == "dpt" else codec
        backbone = self._backbone()
        self.network: nn.Module = backbone
        if config.init_from is not None:
            checkpoints.load_weights(self.network, config.init_from)
        if settings.gradient_checkpointing:
            backbone.denoiser.enable_gradient_checkpointing()
        self.identity: dict[str, Any] = {
            **settings.model_dump(mode="json", exclude=_NOT_OF_THE_NETWORK),
            "sees_noise": self.objective.sees_noise,
        }
        if settings.experts is not None:
            self.identity["experts"] = settings.experts.model_dump(include={"count", "per_token"})
        if settings.head != "autoencoder":
            self.identity["head"] = {"kind": settings.head, "width": settings.head_width}
        check_sizes(backbone, config.data.all_sizes, self.codec.downscale)
        if config.adaptation is not None:
            adapter = plan_adapter(self.network, config.adaptation.share)
            add_lora(self.network, adapter)
            self.identity[checkpoints.ADAPTER] = adapter.model_dump(mode="json")

    def _backbone(self) -> Backbone:
        channels = self.codec.channels
        inputs = channels * (1 + self.objective.sees_noise + self._conditioned)
        tasks, settings = len(self.tasks), self._settings
        if settings.pretrained:
            backbone: Backbone = pretrained_unet(settings.pretrained, inputs, tasks, empty_prompt(settings.pretrained))
        else:
            backbone = new_backbone(settings.kind, settings.config, inputs, channels, tasks)
        if settings.head == "dpt":
            assert isinstance(backbone, UNetBackbone)
            return HeadedUNet(backbone.unet, tasks, backbone.text, settings.head_width)
        if settings.experts is not None:
            assert isinstance(backbone, DiTBackbone)
            if settings.experts.upcycle_from is not None:
                checkpoints.load_weights(backbone, settings.experts.upcycle_from)
            add_experts(backbone.transformer, settings.experts)
        return backbone

    def to(self, device: torch.device) -> None:
        """See `Learner`."""
        self.codec.to(device)

    def losses(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """See `Learner`. Every picture of the batch gets a task of its own: no step forgets the others."""
        tasks = self._draw_tasks(batch, generator)
        annotation, conditions = self._annotated(batch, tasks, generator)
        drawn = generator if self._settings.posterior == "sample" else None
        picture, target = self.codec.encode(batch.image, drawn), self.codec.encode(annotation.picture, drawn)
        example = self.objective.noised(picture, target, generator)
        shown = [self.codec.encode(conditions.picture) * conditions.known] if self._conditioned else []
        said = network(torch.cat([example.inputs, *shown], 1), example.timesteps, tasks.to(picture.device))
        balance = self._expert_balance()
        if self._sees_picture:
            return self._picture_losses(self.codec.decode(-said.float()), annotation, tasks, batch) | balance
        weights = self._emphasis(annotation.picture, tasks)
        terms = {"annotation": latent_loss(said, example.target, annotation.known, weights), **balance}
        if self._reconstructs:
            nothing = [torch.zeros_like(latent) for latent in shown]
            copied = network(torch.cat([example.inputs, *nothing], 1), example.timesteps, len(self.tasks))
            original = picture if drawn is None else self.codec.encode(batch.image, drawn)  # another sample of it
            terms["reconstruction"] = latent_loss(copied, original, torch.ones_like(annotation.known))
        return terms

    def _annotated(self, batch: Batch, tasks: Tensor, generator: torch.Generator) -> tuple[Annotation, Annotation]:
        """The annotation of every picture's own task, and what is shown besides it, known (N, 1, 1, 1) where it is."""
        wanted = Annotation(torch.zeros_like(batch.image), torch.zeros_like(batch.image[:, :1], dtype=torch.bool))
        shown = Annotation(torch.zeros_like(batch.image), torch.zeros_like(wanted.known[:, :, :1, :1]))
        for number in torch.unique(tasks):
            task, rows = self.tasks[int(number)], torch.nonzero(tasks == number)[:, 0]
            part = batch.rows(rows)
            prompts = draw_prompts(part, generator) if task == "mask" else None
            rows = rows.to(batch.image.device)
            found = annotate(task, part, generator, prompts, self._colouring)
            wanted.picture[rows], wanted.known[rows] = found.picture, found.known
            picture = condition(task, part, prompts)
            if picture is not None:
                shown.picture[rows], shown.known[rows] = picture, True
        return wanted, shown

    def _emphasis(self, pictures: Tensor, tasks: Tensor) -> Tensor:
        """(N, 1, H, W), see `annotations.emphasis`, for the annotation of every picture's own task."""
        weights = torch.ones_like(pictures[:, :1])
        for number in torch.unique(tasks):
            rows = torch.nonzero(tasks == number)[:, 0].to(pictures.device)
            weights[rows] = emphasis(self.tasks[int(number)], pictures[rows])
        return weights

    def _picture_losses(
        self, decoded: Tensor, annotation: Annotation, tasks: Tensor, batch: Batch
    ) -> dict[str, Tensor]:
        """Losses on the decoded annotation, every task's weighted with its share of the batch."""
        terms: dict[str, Tensor] = {}
        for number in torch.unique(tasks):
            task, rows = self.tasks[int(number)], torch.nonzero(tasks == number)[:, 0].to(decoded.device)
            truth, known = annotation.picture[rows], annotation.known[rows]
            if self._kind == "e2e_ft":
                part = end_to_end_losses(task, decoded[rows], *_unscaled(task, batch.depth[rows], truth, known))
            else:
                part = picture_losses(task, decoded[rows], truth, known)
            for name, value in part.items():
                terms[name] = terms.get(name, torch.zeros_like(value)) + value * (len(rows) / len(tasks))
        return terms

    def _expert_balance(self) -> dict[str, Tensor]:
        """The loss of uneven work among experts in the last pass; nothing for networks without."""
        imbalances = [mixture.imbalance for mixture in mixtures_of(self.network) if mixture.imbalance is not None]
        if self._settings.experts is None or not imbalances:
            return {}
        return {"experts": self._settings.experts.balance * torch.stack(imbalances).mean()}

    def _draw_tasks(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """(N,) numbers of tasks that the batch has ground truth of.

        Raises:
            InputError: there is none.
        """
        possible = [number for number, task in enumerate(self.tasks) if can_annotate(task, batch)]
        if not possible:
            raise InputError(
                f"the samples {', '.join(batch.names)} have ground truth of none of the tasks "
                f"{', '.join(self.tasks)}: render the training data with the `targets` that they need"
            )
        drawn = torch.randint(0, len(possible), (len(batch.image),), generator=generator)
        return torch.tensor(possible)[drawn]

    def _shown(self, task: str, batch: Batch, prompts: PromptTensors | None, like: Tensor) -> list[Tensor]:
        """The latent of what the task is shown besides the picture, zeros for nothing; none if no task is."""
        if not self._conditioned:
            return []
        picture = condition(task, batch, prompts)
        return [torch.zeros_like(like) if picture is None else self.codec.encode(picture)]

    def estimates(self, network: nn.Module, batch: Batch) -> Estimates:
        """See `Learner`. Always the same point on the same object of a picture."""
        picture, result = self.codec.encode(batch.image), Estimates()
        prompts = None
        if "mask" in self.tasks and batch.instances is not None:
            prompts = draw_prompts(batch, torch.Generator().manual_seed(0), most=1)
            result.objects = prompts.objects
        for number, task in enumerate(self.tasks):
            if task in CONDITIONED and not can_annotate(task, batch):
                continue
            shown = self._shown(task, batch, prompts, picture)

            def predict(
                inputs: Tensor, timesteps: Tensor, number: int = number, shown: list[Tensor] = shown
            ) -> Tensor:
                said: Tensor = network(torch.cat([inputs, *shown], 1), timesteps, number)
                return said.float()

            latent = self.objective.sample(predict, picture, torch.Generator().manual_seed(0))
            drawing = self.codec.decode(latent)
            result.add(estimates_of(task, drawing))
            if task in DRAWN and can_annotate(task, batch):
                truth = annotate(task, batch, torch.Generator().manual_seed(0), prompts, self._colouring)
                result.drawings[task] = drawing, truth.picture
        return result

    def merge(self) -> None:
        """Makes the changes of an adapter, where there is one, part of the network's weights."""
        if checkpoints.ADAPTER in self.identity:
            merge_lora(self.network)

    def finish(self, weights: dict[str, Tensor], run: Path) -> None:
        """Writes `pipeline`, the network in the diffusers layout with what its pre-trained checkpoint had beside it.

        See `Learner`. Diffusers has no transformer with experts: nothing is written for one.
        """
        self.network.load_state_dict(weights)
        self.merge()
        if self._settings.experts is not None:
            return
        folder = run / "pipeline"
        assert isinstance(self.network, Backbone)
        save_backbone(self.network, folder)
        if isinstance(self.network, HeadedUNet):
            self.network.save_head(folder)
        codec = self.codec.inner if isinstance(self.codec, HeadCodec) else self.codec
        if isinstance(codec, VaeCodec):
            codec.vae.save_pretrained(folder / "vae")
            for part in ("text_encoder", "tokenizer", "scheduler"):
                source = Path(str(self._settings.pretrained)) / part
                if source.is_dir():
                    shutil.copytree(source, folder / part, dirs_exist_ok=True)


def _unscaled(task: str, depth: Tensor, truth: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Ground truth as E2E-FT has it, and where it is known: depth in metres, or one over it, without the sky.

    Args:
        depth: (N, H, W) metres.
        truth, known: the annotation, which normals keep.
    """
    if task == "normals":
        return truth, known
    metres = depth[:, None]
    measured = torch.isfinite(metres) & (metres > 0)
    values = torch.where(measured, metres, 1.0)
    return (values if task == "depth" else 1.0 / values), measured
