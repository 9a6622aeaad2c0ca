"""Marigold: a Stable Diffusion 2 U-Net that denoises annotations beside the picture's latent (Ke et al., CVPR 2024).

Depth, normals and intrinsic images of the v1-1 checkpoints in one to many steps, alone or in ensembles, and the
consistency models (LCM) of few steps. The recipe follows the pipelines of diffusers (`pipelines/marigold`), which the
publishers wrote; noise schedule and step rule come from the checkpoint's own scheduler, targets and the meaning of the
normals' third channel from its `model_index.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from diffusers import DDIMScheduler, LCMScheduler, UNet2DConditionModel
from torch import Tensor

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.families.autoencoder import Autoencoder, load_autoencoder
from diffusion_perception_ros.families.checkpoint_files import CheckpointFiles
from diffusion_perception_ros.families.latent_unet import LatentUNet, check_linear, load_unet, one_step_weights
from diffusion_perception_ros.families.loading import load_scheduler, load_text_constant
from diffusion_perception_ros.families.recipe import LoadOptions, Recipe, check_settings, find_recipe
from diffusion_perception_ros.inference.card import (
    DepthOutput,
    LicenceTerms,
    NormalsOutput,
    Output,
    PictureOutput,
)


SETTINGS: Mapping[str, str] = {}

INDEX = "model_index.json"
SCHEDULER = "scheduler/scheduler_config.json"
SCHEDULERS = {"DDIMScheduler": DDIMScheduler, "LCMScheduler": LCMScheduler}
_SCHEDULE = (
    "num_train_timesteps",
    "beta_schedule",
    "beta_start",
    "beta_end",
    "prediction_type",
    "rescale_betas_zero_snr",
    "set_alpha_to_one",
    "clip_sample",
)
"""Fields that the configs of both schedulers share with the card's sampler."""
SMALLEST_NORM = 1e-6
"""Normals shorter than this keep their length (diffusers `normalize_normals`)."""

_TASK_OF_PIPELINE = {
    "MarigoldDepthPipeline": ("depth",),
    "MarigoldNormalsPipeline": ("normals",),
    "MarigoldIntrinsicsPipeline": ("appearance", "lighting"),
}
"""Tasks of the classes that `model_index.json` names; it may also name classes that no package has."""

_HUB = "https://huggingface.co/prs-eth"
_OPEN_RAIL = LicenceTerms(spdx="CreativeML Open RAIL++-M", url=f"{_HUB}/marigold-depth-v1-1")
_APACHE = LicenceTerms(spdx="Apache-2.0", url=f"{_HUB}/marigold-depth-lcm-v1-0")
_UNIT = (0.0, 1.0)
_DEPTH = DepthOutput(quantity="relative_depth", tensor="depth", range=_UNIT)
_NORMALS = NormalsOutput(tensor="normals", axes=("right", "up", "backward"))
_SRGB_ALBEDO = PictureOutput(task="albedo", quantity="albedo", tensor="albedo", range=_UNIT)
_MATERIAL = PictureOutput(
    task="material", quantity="material", tensor="material", range=_UNIT, prediction_space="stack"
)
_LINEAR_ALBEDO, _SHADING, _RESIDUAL = (
    PictureOutput(task=task, quantity=task, tensor=task, range=_UNIT, prediction_space="linear")
    for task in ("albedo", "shading", "residual")
)


def _recipe(
    task: str, checkpoints: tuple[str, ...], training_data: str, *outputs: Output, lcm: bool = False
) -> Recipe:
    return Recipe(
        family="marigold",
        task=task,
        variant="lcm" if lcm else "",
        checkpoints=checkpoints,
        licence=_APACHE if lcm else _OPEN_RAIL,
        training_data=training_data,
        outputs=outputs,
        latent_channels=4 * len(outputs),
        latents=len(outputs),
        resize_dtype="uint8",
        interpolation="bilinear_antialias",
        restore="bilinear_antialias",
        any_size=True,
        network_inputs=("image", "noise"),
        noise="normal",
        prediction_type="v_prediction",
        prediction_sign=-1.0,
        reduction="mean" if task == "depth" else "none",
    )


_DEPTH_DATA = "Hypersim and Virtual KITTI 2"
_NORMALS_DATA = "Hypersim, InteriorVerse and Sintel"
RECIPES = (
    _recipe("depth", ("prs-eth/marigold-depth-v1-1",), _DEPTH_DATA, _DEPTH),
    _recipe("depth", ("prs-eth/marigold-depth-lcm-v1-0",), _DEPTH_DATA, _DEPTH, lcm=True),
    _recipe("normals", ("prs-eth/marigold-normals-v1-1",), _NORMALS_DATA, _NORMALS),
    _recipe("normals", ("prs-eth/marigold-normals-lcm-v0-1",), _NORMALS_DATA, _NORMALS, lcm=True),
    _recipe("appearance", ("prs-eth/marigold-iid-appearance-v1-1",), "InteriorVerse", _SRGB_ALBEDO, _MATERIAL),
    _recipe("lighting", ("prs-eth/marigold-iid-lighting-v1-1",), "Hypersim", _LINEAR_ALBEDO, _SHADING, _RESIDUAL),
)


class Marigold(LatentUNet):
    """All tasks; the recipe's `latents` says how many pictures the latent holds."""

    def __init__(
        self,
        recipe: Recipe,
        autoencoder: Autoencoder,
        unet: UNet2DConditionModel,
        text: Tensor,
        scheduler: DDIMScheduler | LCMScheduler,
        full_z_range: bool = True,
    ) -> None:
        """
        Args:
            scheduler: With the config of the checkpoint; its timestep of a single step replaces the recipe's.
            full_z_range: False: the third channel of the normals is 2 z - 1, so that z in [0, 1] fills the range.
        """
        timestep, self._of_prediction, self._of_noise = one_step_weights(scheduler)
        recipe = replace(recipe, timestep=timestep, prediction_type=scheduler.config.prediction_type)
        super().__init__(recipe, autoencoder, unet, text)
        self._scheduler = dict(scheduler.config)
        self._is_lcm = isinstance(scheduler, LCMScheduler)
        self._full_z_range = full_z_range

    def clean_latent(self, prediction: Tensor, noisy_latent: Tensor) -> Tensor:
        """The scheduler's single step. It keeps a little of the noise where the config ends at timestep 0's level."""
        return self._of_prediction * prediction + self._of_noise * noisy_latent

    def decode(self, latent: Tensor) -> tuple[Tensor, ...]:
        """Depth (1, 1, H, W) in [0, 1]; normals (1, 3, H, W), unit vectors; or pictures (1, 3, H, W) in [0, 1]."""
        if self.recipe.reduction == "mean":
            depth = self.autoencoder.decode(latent).mean(dim=1, keepdim=True).clamp(-1.0, 1.0)
            return ((depth + 1.0) / 2.0,)
        parts = latent.chunk(self.recipe.latents, dim=1)
        pictures = [self.autoencoder.decode(part).clamp(-1.0, 1.0) for part in parts]
        if self.recipe.task == "normals":
            return (self._unit_vectors(pictures[0]),)
        return tuple((picture + 1.0) / 2.0 for picture in pictures)

    def _unit_vectors(self, normals: Tensor) -> Tensor:
        if not self._full_z_range:
            z = normals[:, 2:] * 0.5 + 0.5
            normals = torch.cat([normals[:, :2], z], dim=1)
        length: Tensor = torch.linalg.vector_norm(normals, dim=1, keepdim=True)
        return normals / length.clamp(min=SMALLEST_NORM)

    def card_sampler(self, steps: int) -> dict[str, Any]:
        """The checkpoint's own scheduler, DDIM or LCM, for any number of steps."""
        spacing = ("timestep_spacing", "steps_offset")
        own = ("original_inference_steps", "timestep_scaling") if self._is_lcm else spacing
        return {
            "scheduler": "lcm" if self._is_lcm else "ddim",
            "latent_channels": self.recipe.latent_channels,
            "latent_downscale": self.recipe.latent_downscale,
            **{name: self._scheduler[name] for name in (*_SCHEDULE, *own)},
        }


def load(checkpoint: str, task: str, options: LoadOptions) -> Marigold:
    """Loads a Marigold checkpoint; its scheduler says whether it is a consistency model.

    Raises:
        InputError: the checkpoint is not a Marigold one of this task, incomplete, or out of reach.
    """
    check_settings("marigold", options.settings, SETTINGS)
    find_recipe(RECIPES, checkpoint, task)  # before anything is downloaded
    files = CheckpointFiles(checkpoint, options.revision)
    scheduler = _load_scheduler(files)
    recipe = find_recipe(RECIPES, checkpoint, task, "lcm" if isinstance(scheduler, LCMScheduler) else "")
    index = _read_index(files, recipe)
    text = load_text_constant(files, recipe.prompt, recipe.prompt_tokens)
    unet = load_unet(files, "unet", recipe, text)
    autoencoder = load_autoencoder(files, recipe)
    return Marigold(recipe, autoencoder, unet, text, scheduler, index.get("use_full_z_range") is not False)


def _load_scheduler(files: CheckpointFiles) -> DDIMScheduler | LCMScheduler:
    part = files.part("scheduler")
    named = DDIMScheduler.load_config(str(part.root), subfolder="scheduler", local_files_only=True).get("_class_name")
    if named not in SCHEDULERS:
        raise InputError(
            f"{files.name}/{SCHEDULER} names a {named}: Marigold's step rules are {' and '.join(SCHEDULERS)}"
        )
    scheduler: DDIMScheduler | LCMScheduler = load_scheduler(SCHEDULERS[named], files)
    check_linear(scheduler.config, f"{files.name}/{SCHEDULER}")
    return scheduler


def _read_index(files: CheckpointFiles, recipe: Recipe) -> dict[str, Any]:
    """The pipeline's own settings, checked against the task."""
    path = files.file(INDEX)
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): download the checkpoint again") from error
    tasks = _TASK_OF_PIPELINE.get(index.get("_class_name"), (recipe.task,))
    if recipe.task not in tasks:
        raise InputError(f"{path} is of a {index['_class_name']}: give --task {' or '.join(tasks)}")
    if recipe.task == "depth" and index.get("prediction_type", "depth") != "depth":
        raise InputError(f"{path} says that it predicts {index['prediction_type']}: no such Marigold is published")
    targets = (index.get("target_properties") or {}).get("target_names")
    expected = [output.tensor for output in recipe.outputs]
    if targets is not None and targets != expected:
        raise InputError(
            f"{path} has the targets {', '.join(targets)}, --task {recipe.task} has {', '.join(expected)}"
        )
    return index  # type: ignore[no-any-return]
