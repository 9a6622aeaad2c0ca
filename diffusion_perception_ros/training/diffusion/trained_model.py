"""A diffusion backbone of the trainer as the exporter wants it: what it is shown, what it says, what the card says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.families.recipe import FamilyModel, Recipe
from diffusion_perception_ros.inference.card import (
    AlphaOutput,
    ColorClustering,
    DepthOutput,
    FlowOutput,
    InstancesOutput,
    LicenceTerms,
    MaskOutput,
    NormalsOutput,
    Output,
    PointsInput,
    PromptMaskInput,
    SecondImageInput,
    SemanticOutput,
)
from diffusion_perception_ros.training.card_labels import world_labels
from diffusion_perception_ros.training.checkpoint import AVERAGED, Checkpoint, load_weights
from diffusion_perception_ros.training.config import DiffusionNetwork, TrainingConfig
from diffusion_perception_ros.training.diffusion.annotations import flow_vectors
from diffusion_perception_ros.training.diffusion.backbones import UNetBackbone
from diffusion_perception_ros.training.diffusion.codec import Codec
from diffusion_perception_ros.training.diffusion.drawings import POSE
from diffusion_perception_ros.training.diffusion.heads import HeadCodec
from diffusion_perception_ros.training.diffusion.learner import DiffusionLearner
from diffusion_perception_ros.training.diffusion.objectives import TRAIN_STEPS, MultiStep
from diffusion_perception_ros.training.diffusion.prompts import CONDITIONED, MOST_POINTS, point_map


CONDITIONS = {"flow": "second_image", "mask": "points", "amodal": "prompt_mask"}
"""Task → the graph's input that it is shown besides the picture; also the field of the card."""
_LEAST_SIGNAL = 0.01
"""Share of the clean latent that the noisiest one must have for a prediction of the noise to say something of it."""
_PICTURE_RANGE = (-1.0, 1.0)
_COLOURS = ("semantic", "entity", "pose")
"""Tasks whose outputs are RGB in [0, 1]."""


def card_output(task: str) -> Output:
    """What the card says about the annotation of a task."""
    match task:
        case "depth":
            return DepthOutput(quantity="relative_depth", tensor=task, range=_PICTURE_RANGE)
        case "disparity":
            return DepthOutput(quantity="relative_disparity", tensor=task, range=_PICTURE_RANGE)
        case "normals":
            return NormalsOutput(tensor=task, axes=("left", "up", "backward"))
        case "semantic":
            return SemanticOutput(tensor=task, encoding="colors", labels=world_labels())
        case "entity":
            return InstancesOutput(tensor=task, encoding="colors", clustering=ColorClustering())
        case "alpha":
            return AlphaOutput(tensor=task, range=_PICTURE_RANGE)
        case "pose":
            return POSE.model_copy(update={"tensor": task})
        case "flow":
            return FlowOutput(tensor=task, scale=1.0)  # the graph multiplies with the width of its picture
    return MaskOutput(tensor=task, range=_PICTURE_RANGE)


class NativeModel(FamilyModel):
    """A network of the trainer, in pixels or in the latent space of its codec."""

    def __init__(self, recipe: Recipe, network: nn.Module, codec: Codec | HeadCodec) -> None:
        super().__init__(recipe)
        self.network: Any = network
        self.codec = codec

    @property
    def description(self) -> str:
        """The network in words."""
        millions = sum(parameter.numel() for parameter in self.network.parameters()) / 1e6
        return f"`{type(self.network.denoiser).__name__}`, {millions:.1f} M parameters, {self.recipe.caveat}"

    def encode(self, image: Tensor) -> Tensor:
        """See `FamilyModel`."""
        return self.codec.encode(image)


class TrainedModel(NativeModel):
    """Runs the network once for each of its tasks; their latents are stacked on the channel axis.

    The latent of what a task is shown besides the picture follows the picture's in the image latent.
    """

    def __init__(self, recipe: Recipe, learner: DiffusionLearner, tasks: Sequence[str]) -> None:
        super().__init__(recipe, learner.network, learner.codec)
        self.tasks = tuple(tasks)
        self.encode_conditions = tuple(CONDITIONS[task] for task in tasks if task in CONDITIONS)
        self._numbers = [learner.tasks.index(task) for task in tasks]
        self._is_conditioned = bool(CONDITIONED & set(learner.tasks))
        self._objective = learner.objective
        self._signal = 0.0
        """Share of the clean latent in the noisiest one, of a noise schedule."""
        if isinstance(self._objective, MultiStep):
            self._signal = math.sqrt(float(self._objective.scheduler.alphas_cumprod[-1]))

    @property
    def steps(self) -> int:
        """Denoising steps that it was validated with."""
        return self._objective.steps

    @property
    def image_latent_channels(self) -> int:
        """See `FamilyModel`."""
        return self.codec.channels * (1 + len(self.encode_conditions))

    def encode_prompted(self, image: Tensor, **conditions: Tensor) -> Tensor:
        """See `FamilyModel`; `second_image` (1, 3, H, W), `points` (1, most, 3), `prompt_mask` (1, 1, H, W)."""
        shown = [self._shown(name, image, conditions[name]) for name in self.encode_conditions]
        return torch.cat([self.encode(image), *shown], dim=1)

    def denoise(self, image_latent: Tensor, noisy_latent: Tensor, timestep: Tensor, **conditions: Tensor) -> Tensor:
        """See `FamilyModel`."""
        parts = image_latent.expand(noisy_latent.shape[0], -1, -1, -1).chunk(1 + len(self.encode_conditions), dim=1)
        shown = dict(zip(self.encode_conditions, parts[1:], strict=True))
        noisy = noisy_latent.chunk(len(self.tasks), dim=1)
        answers = [
            self._answer(place, parts[0], shown.get(CONDITIONS.get(task, "")), noisy[place], timestep)
            for place, task in enumerate(self.tasks)
        ]
        return torch.cat(answers, dim=1)

    def clean_latent(self, prediction: Tensor, noisy_latent: Tensor) -> Tensor:
        """See `FamilyModel`. The noise matters to the objectives of several steps, of which this is the first."""
        if not isinstance(self._objective, MultiStep):
            is_flow = self.recipe.prediction_type == "velocity"
            return noisy_latent - prediction if is_flow else super().clean_latent(prediction, noisy_latent)
        clean = prediction
        if self.recipe.prediction_type == "v_prediction":
            clean = self._signal * noisy_latent - math.sqrt(1 - self._signal**2) * prediction
        elif self.recipe.prediction_type == "epsilon":
            clean = (noisy_latent - math.sqrt(1 - self._signal**2) * prediction) / self._signal
        return clean.clamp(-1.0, 1.0) if self._objective.scheduler.config.clip_sample else clean

    def check_fused(self) -> None:
        """See `FamilyModel`."""
        if self.recipe.prediction_type == "epsilon" and self._signal < _LEAST_SIGNAL:
            raise InputError(
                "this network predicts the noise, which in a single step from pure noise leaves nothing of the "
                "annotation: give more --steps, or train with 'prediction_type: v_prediction' or 'sample'"
            )

    def decode(self, latent: Tensor) -> tuple[Tensor, ...]:
        """See `FamilyModel`."""
        return tuple(
            self._read(task, part) for task, part in zip(self.tasks, latent.chunk(len(self.tasks), dim=1), strict=True)
        )

    def with_latent(
        self, image: Tensor, noise: Tensor | None = None, **conditions: Tensor
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """See `FamilyModel`. No task goes through the latents of another one: what is not asked for can be cut off."""
        picture = self.encode(image)
        timestep = torch.full((1,), float(self.recipe.timestep), device=image.device)
        noisy: Sequence[Tensor] = [torch.zeros_like(picture)] * len(self.tasks)
        if noise is not None:
            noisy = noise.chunk(len(self.tasks), dim=1)
        outputs, latents = [], []
        for place, task in enumerate(self.tasks):
            name = CONDITIONS.get(task)
            shown = None if name is None else self._shown(name, image, conditions[name])
            answer = self._answer(place, picture, shown, noisy[place], timestep)
            latents.append(self.clean_latent(answer, noisy[place]))
            outputs.append(self._read(task, latents[-1]))
        return tuple(outputs), torch.cat(latents, dim=1)

    def example_conditions(self, width: int, height: int) -> dict[str, Tensor]:
        """See `FamilyModel`: another picture, a point on and one beside the object, a mask with something in it."""
        mask = torch.zeros(1, 1, height, width)
        mask[:, :, height // 4 : height // 2, width // 4 : width // 2] = 1.0
        points = torch.zeros(1, MOST_POINTS, 3)
        points[0, :2] = torch.tensor([[0.3, 0.4, 1.0], [0.8, 0.6, 0.0]])
        examples = {"second_image": torch.zeros(1, 3, height, width), "points": points, "prompt_mask": mask}
        return {name: examples[name] for name in self.encode_conditions}

    def card_inputs(self) -> dict[str, Any]:
        """See `FamilyModel`."""
        described = {
            "second_image": SecondImageInput(tensor="second_image"),
            "points": PointsInput(tensor="points", most=MOST_POINTS, order="xy"),
            "prompt_mask": PromptMaskInput(tensor="prompt_mask"),
        }
        return {name: described[name] for name in self.encode_conditions}

    def card_sampler(self, steps: int) -> dict[str, Any]:
        """See `FamilyModel`; for Lotus-G a single step, whose noise the members of an ensemble draw anew."""
        latent = {"latent_channels": self.recipe.latent_channels, "latent_downscale": self.recipe.latent_downscale}
        kind = self.recipe.prediction_type
        if kind == "velocity":
            return {"scheduler": "euler_flow", **latent}
        ddim = {"scheduler": "ddim", "prediction_type": kind, **latent}
        if isinstance(self._objective, MultiStep):
            fields = ["beta_schedule", "beta_start", "beta_end", "timestep_spacing"]
            fields += ["rescale_betas_zero_snr", "clip_sample"]
            return ddim | {name: self._objective.scheduler.config[name] for name in fields}
        if steps != 1 or self.recipe.noise == "none":
            return super().card_sampler(steps)
        return ddim | {"beta_schedule": "scaled_linear", "timestep_spacing": "trailing"}

    def _shown(self, name: str, image: Tensor, condition: Tensor) -> Tensor:
        """The latent of a condition, which the network sees as a picture."""
        if name == "points":
            condition = point_map(condition, *image.shape[2:]).to(image.dtype)
        elif name == "prompt_mask":
            condition = (2 * condition - 1).expand(-1, 3, -1, -1)
        return self.codec.encode(condition)

    def _answer(self, place: int, picture: Tensor, shown: Tensor | None, noisy: Tensor, timestep: Tensor) -> Tensor:
        """What the network says for the task at a place of `tasks`; it sees what the learner shows it."""
        inputs = [picture, noisy] if self._objective.sees_noise else [picture]
        if self._is_conditioned:
            inputs.append(torch.zeros_like(picture) if shown is None else shown)
        said: Tensor = self.network(torch.cat(inputs, dim=1), timestep.expand(picture.shape[0]), self._numbers[place])
        return said

    def _read(self, task: str, latent: Tensor) -> Tensor:
        """A task's output from its clean latent."""
        picture = self.codec.decode(latent)
        if task == "flow":
            return flow_vectors(picture)
        if task in _COLOURS:
            return (picture + 1.0) / 2.0
        return picture if task == "normals" else picture.mean(dim=1, keepdim=True)


def load_trained(checkpoint: Checkpoint, tasks: Sequence[str] = ()) -> TrainedModel:
    """The averaged weights of a checkpoint, those of an adapter merged.

    Args:
        tasks: which of its tasks, none = all.

    Raises:
        InputError: it is not of a diffusion backbone, was not trained on such a task, two tasks are the same output of
            a model, or weights are missing.
    """
    config = TrainingConfig.model_validate(checkpoint.state["config"])
    settings = config.network
    if not isinstance(settings, DiffusionNetwork) or config.objective.kind == "joint":
        raise InputError(
            f"{checkpoint.folder} holds no network that answers one task at a time: its objective is "
            f"'{config.objective.kind}', its network a '{settings.kind}'"
        )
    chosen = _check_tasks(tuple(tasks) or settings.tasks, settings.tasks, checkpoint)
    # What the run started from is part of the weights.
    experts = settings.experts and settings.experts.model_copy(update={"upcycle_from": None})
    settings = settings.model_copy(update={"experts": experts})
    learner = DiffusionLearner(config.model_copy(update={"init_from": None, "network": settings}))
    load_weights(learner.network, checkpoint.folder / AVERAGED)
    learner.merge()
    learner.network.requires_grad_(False).eval()
    return TrainedModel(_recipe(config, settings, learner, chosen, checkpoint), learner, chosen).eval()


def _check_tasks(chosen: Sequence[str], trained: Sequence[str], checkpoint: Checkpoint) -> tuple[str, ...]:
    unknown = [task for task in chosen if task not in trained]
    if unknown:
        raise InputError(f"{checkpoint.folder} was not trained on '{unknown[0]}': choose from {', '.join(trained)}")
    by_output: dict[str, str] = {}
    for task in dict.fromkeys(chosen):
        other = by_output.setdefault(card_output(task).task, task)
        if other != task:
            raise InputError(
                f"'{other}' and '{task}' are both the output '{card_output(task).task}' of a model: name the tasks "
                "of this folder with --tasks, and export another folder for the rest"
            )
    return tuple(by_output.values())


def _recipe(
    config: TrainingConfig,
    settings: DiffusionNetwork,
    learner: DiffusionLearner,
    tasks: Sequence[str],
    checkpoint: Checkpoint,
) -> Recipe:
    kind = config.objective.kind
    of_objective: dict[str, dict[str, Any]] = {
        "multi_step": {"prediction_type": config.objective.prediction_type},
        "flow_matching": {"prediction_type": "velocity", "timestep": TRAIN_STEPS},
        "genpercept": {"timestep": 1, "prediction_sign": -1.0},
        "e2e_ft": {"prediction_sign": -1.0, "noise": "zeros"},
    }
    return native_recipe(
        checkpoint,
        learner.network,
        learner.codec,
        config.data.sizes[0],
        {task: card_output(task) for task in tasks},
        licence=_licence(settings),
        caveat=f"trained with {kind}",
        **{"noise": "normal" if learner.objective.sees_noise else "none", **of_objective.get(kind, {})},
    )


def native_recipe(
    checkpoint: Checkpoint,
    network: nn.Module,
    codec: Codec | HeadCodec,
    size: tuple[int, int],
    outputs: Mapping[str, Output],
    **fields: Any,
) -> Recipe:
    """What is the same for every network of the trainer that answers each task with a picture of its own.

    Args:
        size: (width, height) that it was validated with; a transformer takes no other.
        outputs: Task → what the card says about it.
        fields: Further ones of `Recipe`.
    """
    unit = codec.downscale
    fixed_size: tuple[int, int] | None = size
    if isinstance(network, UNetBackbone):
        unit *= 2 ** (len(network.denoiser.config["block_out_channels"]) - 1)
        fixed_size = None
    return Recipe(
        family="native",
        task=", ".join(outputs),
        checkpoints=(),
        training_data=f"{checkpoint.state['samples']} samples seen",
        outputs=tuple(outputs.values()),
        resolution=max(size),
        fixed_size=fixed_size,
        multiple_of=unit,
        dynamic_multiple_of=unit,
        latent_channels=codec.channels * len(outputs),
        latents=len(outputs),
        latent_downscale=codec.downscale,
        **fields,
    )


def _licence(settings: DiffusionNetwork) -> LicenceTerms:
    if settings.pretrained is None:
        return LicenceTerms(spdx="Apache-2.0")
    return LicenceTerms(spdx=f"that of {settings.pretrained}, which it was fine-tuned from")
