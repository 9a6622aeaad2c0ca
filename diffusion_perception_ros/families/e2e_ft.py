"""E2E-FT: Marigold and Stable Diffusion 2 fine-tuned end to end for one step (Martin Garcia et al., WACV 2025).

The network is Marigold's with zeros in place of the noise, so that its prediction is deterministic. The recipe follows
`Marigold/marigold/marigold_pipeline.py` of the published code with its options for the published checkpoints: zeros,
one step, trailing timesteps. What the published code does last, stretching every depth picture to [0, 1] by its own
smallest and largest value, is left out: the values are relative anyway, and video would flicker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor

from diffusion_perception_ros.families.autoencoder import Autoencoder, load_autoencoder
from diffusion_perception_ros.families.checkpoint_files import CheckpointFiles
from diffusion_perception_ros.families.latent_unet import LatentUNet, check_linear, load_unet, one_step_weights
from diffusion_perception_ros.families.loading import load_scheduler, load_text_constant
from diffusion_perception_ros.families.recipe import LoadOptions, Recipe, check_settings, find_recipe
from diffusion_perception_ros.inference.card import DepthOutput, LicenceTerms, NormalsOutput, Output


SETTINGS: Mapping[str, str] = {}

NORM_OFFSET = 1e-5
"""Added to the length that normals are divided by."""

_LICENCE = LicenceTerms(spdx="Apache-2.0", url="https://huggingface.co/GonzaloMG/marigold-e2e-ft-depth")
_DEPTH = DepthOutput(quantity="relative_depth", tensor="depth", range=(0.0, 1.0))
# The labels are Hypersim's normals, flipped to (left, up, towards the camera): training/dataloaders/load.py.
_NORMALS = NormalsOutput(tensor="normals", axes=("left", "up", "backward"))


def _recipe(task: str, checkpoints: tuple[str, ...], output: Output) -> Recipe:
    return Recipe(
        family="e2e-ft",
        task=task,
        checkpoints=checkpoints,
        licence=_LICENCE,
        training_data="Hypersim and Virtual KITTI 2",
        outputs=(output,),
        resize_dtype="uint8",
        interpolation="bilinear_antialias",
        restore="bilinear_antialias",
        any_size=True,
        network_inputs=("image", "noise"),
        noise="zeros",
        timestep=999,
        prediction_type="v_prediction",
        prediction_sign=-1.0,
        reduction="mean" if task == "depth" else "none",
    )


RECIPES = (
    _recipe("depth", ("GonzaloMG/marigold-e2e-ft-depth", "GonzaloMG/stable-diffusion-e2e-ft-depth"), _DEPTH),
    _recipe("normals", ("GonzaloMG/marigold-e2e-ft-normals", "GonzaloMG/stable-diffusion-e2e-ft-normals"), _NORMALS),
)


class E2eFt(LatentUNet):
    """Depth or normals in one step."""

    def __init__(
        self,
        recipe: Recipe,
        autoencoder: Autoencoder,
        unet: UNet2DConditionModel,
        text: Tensor,
        scheduler: DDIMScheduler,
    ) -> None:
        """
        Args:
            scheduler: With the config of the checkpoint, trailing; its timestep replaces the recipe's.
        """
        timestep, self._of_prediction, self._of_noise = one_step_weights(scheduler, "pred_original_sample")
        recipe = replace(recipe, timestep=timestep, prediction_type=scheduler.config.prediction_type)
        super().__init__(recipe, autoencoder, unet, text)

    def clean_latent(self, prediction: Tensor, noisy_latent: Tensor) -> Tensor:
        """The scheduler's estimate of the clean latent: -sqrt(1 - a) v + sqrt(a) noise, a the signal left at 999."""
        return self._of_prediction * prediction + self._of_noise * noisy_latent

    def decode(self, latent: Tensor) -> tuple[Tensor, ...]:
        """Depth (1, 1, H, W) in [0, 1], or normals (1, 3, H, W), unit vectors."""
        picture = self.autoencoder.decode(latent)
        if self.recipe.reduction == "mean":
            return ((picture.mean(dim=1, keepdim=True).clamp(-1.0, 1.0) + 1.0) / 2.0,)
        return (picture / (torch.linalg.vector_norm(picture, dim=1, keepdim=True) + NORM_OFFSET),)


def load(checkpoint: str, task: str, options: LoadOptions) -> E2eFt:
    """Loads an E2E-FT checkpoint.

    Raises:
        InputError: the checkpoint is not an E2E-FT one, incomplete, or out of reach.
    """
    check_settings("e2e-ft", options.settings, SETTINGS)
    recipe = find_recipe(RECIPES, checkpoint, task)
    files = CheckpointFiles(checkpoint, options.revision)
    scheduler = DDIMScheduler.from_config(load_scheduler(DDIMScheduler, files).config, timestep_spacing="trailing")
    check_linear(scheduler.config, f"{files.name}/scheduler/scheduler_config.json")
    text = load_text_constant(files, recipe.prompt, recipe.prompt_tokens)
    unet = load_unet(files, "unet", recipe, text)
    return E2eFt(recipe, load_autoencoder(files, recipe), unet, text, scheduler)
