"""Lotus: an SD2-base U-Net that predicts the annotation's latent in one step (He et al., ICLR 2025).

The recipe follows `pipeline.py` and `infer.py` of the published code. Lotus-D takes the picture's latent alone,
Lotus-G stacks noise behind it. A class embedding tells the U-Net to predict the annotation instead of the picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from diffusion_perception_ros.families.autoencoder import load_autoencoder
from diffusion_perception_ros.families.checkpoint_files import CheckpointFiles
from diffusion_perception_ros.families.latent_unet import LatentUNet, unet_channels
from diffusion_perception_ros.families.loading import check_config, load_network, load_text_constant
from diffusion_perception_ros.families.recipe import (
    LoadOptions,
    Recipe,
    check_settings,
    find_recipe,
)
from diffusion_perception_ros.inference.card import DepthOutput, LicenceTerms, NormalsOutput, Output


TASK_EMBEDDING = (math.sin(1.0), math.sin(0.0), math.cos(1.0), math.cos(0.0))
"""`class_labels` for predicting the annotation, the sine and cosine of (1, 0); (0, 1) is the picture again."""

SETTINGS: Mapping[str, str] = {}

_DEPTH = DepthOutput(quantity="relative_depth", tensor="depth", range=(0.0, 1.0))
_DISPARITY = DepthOutput(quantity="relative_disparity", tensor="depth", range=(0.0, 1.0))
# The labels are Hypersim's normals, flipped to (left, up, towards the camera).
_NORMALS = NormalsOutput(tensor="normals", axes=("left", "up", "backward"))


def _recipe(task: str, variant: str, checkpoints: tuple[str, ...], output: Output) -> Recipe:
    generative = variant == "g"
    return Recipe(
        family="lotus",
        task=task,
        variant=variant,
        checkpoints=checkpoints,
        licence=LicenceTerms(spdx="Apache-2.0", url=f"https://huggingface.co/{checkpoints[0]}"),
        training_data="Hypersim and Virtual KITTI 2",
        outputs=(output,),
        interpolation="bilinear_antialias",
        restore="nearest_exact",
        any_size=True,
        latent_statistic="sample",
        network_inputs=("image", "noise") if generative else ("image",),
        noise="normal" if generative else "none",
        timestep=999,
        prediction_type="sample",
        reduction="none" if task == "normals" else "mean",
    )


RECIPES = (
    _recipe("depth", "d", ("jingheya/lotus-depth-d-v1-0",), _DEPTH),
    _recipe("depth", "g", ("jingheya/lotus-depth-g-v1-0",), _DEPTH),
    _recipe("disparity", "d", ("jingheya/lotus-depth-d-v2-0-disparity",), _DISPARITY),
    _recipe("disparity", "g", ("jingheya/lotus-depth-g-v2-1-disparity",), _DISPARITY),
    _recipe("normals", "d", ("jingheya/lotus-normal-d-v1-1",), _NORMALS),
    _recipe("normals", "g", ("jingheya/lotus-normal-g-v1-1",), _NORMALS),
)


class Lotus(LatentUNet):
    """Lotus D or G, which the recipe's `network_inputs` tell apart."""

    def decode(self, latent: Tensor) -> tuple[Tensor, ...]:
        """Depth or disparity (1, 1, H, W) in [0, 1], or encoded normals (1, 3, H, W) in [-1, 1]."""
        picture = self.autoencoder.decode(latent).clamp(-1.0, 1.0)
        if self.recipe.reduction == "mean":
            return ((picture * 0.5 + 0.5).mean(dim=1, keepdim=True),)
        return (picture,)

    def card_sampler(self, steps: int) -> dict[str, Any]:
        """One step from the last timestep, whose result is the clean latent: for ensembles over the noise of Lotus-G.

        Their spread is the uncertainty map of the paper's section 4.4.
        """
        if steps != 1:
            return super().card_sampler(steps)
        return {
            "scheduler": "ddim",
            "prediction_type": "sample",
            "latent_channels": self.recipe.latent_channels,
            "latent_downscale": self.recipe.latent_downscale,
            "beta_schedule": "scaled_linear",
            "timestep_spacing": "trailing",
        }


def load(checkpoint: str, task: str, options: LoadOptions) -> Lotus:
    """Loads a Lotus checkpoint; its U-Net's channels say whether it is D or G.

    Raises:
        InputError: the checkpoint is not a Lotus one of this task, incomplete, or out of reach.
    """
    check_settings("lotus", options.settings, SETTINGS)
    find_recipe(RECIPES, checkpoint, task, variant="d")  # before anything is downloaded
    files = CheckpointFiles(checkpoint, options.revision)
    unet = load_network(UNet2DConditionModel, files, "unet")
    recipe = find_recipe(RECIPES, checkpoint, task, variant="g" if unet.config.in_channels == 8 else "d")
    embedding = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": len(TASK_EMBEDDING)}
    check_config(files, "unet", unet, {**unet_channels(recipe), **embedding})
    autoencoder = load_autoencoder(files, recipe)
    text = load_text_constant(files, recipe.prompt, recipe.prompt_tokens)
    check_config(files, "unet", unet, {"cross_attention_dim": text.shape[2]})
    return Lotus(recipe, autoencoder, unet, text, class_labels=torch.tensor([TASK_EMBEDDING]))
