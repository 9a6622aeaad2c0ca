"""DICEPTION: a Stable Diffusion 3 transformer that draws every task's answer as a picture (Zhao et al., 2025).

The recipe follows `models/Renderer.py` and `models/backbone.py` of the published code. Noisy latent and picture are
tokens of one sequence with the same positions; five point prompts follow the text; flow matching in 1 to 28 steps,
with or without classifier-free guidance. Decisions where the published code leaves a choice:

- Points: `inference.py` gives the network (x, y), the collator of the published evaluation (`dataset/dataset.py`)
  (row, column), that is (y, x). We follow the evaluation; the setting `point-order` chooses the other.
- Pictures are stretched to 768 x 768, as the evaluation does it: bilinear with antialiasing, on floats.
- The labels of normals came from StableNormal, whose axes are (left, up, towards the viewer) according to its
  maintainers (Stable-X/StableNormal, issue 18).
- Which colours are objects: nothing is published but the idea. Black is background, see `BACKGROUND`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from torch import Tensor

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.families.autoencoder import Autoencoder, load_autoencoder
from diffusion_perception_ros.families.checkpoint_files import CheckpointFiles
from diffusion_perception_ros.families.diception_prompts import COCO_CLASSES, EMPTY, EncodedPrompt, encoded_prompts
from diffusion_perception_ros.families.diception_weights import PointEmbedder, load_diception
from diffusion_perception_ros.families.loading import load_scheduler
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
    InstancesOutput,
    KeypointsOutput,
    Label,
    LicenceTerms,
    MaskOutput,
    NormalsOutput,
    Output,
    PointsInput,
    SemanticOutput,
)


PROMPTS = {
    "disparity": "[[image2depth]]",
    "normals": "[[image2normal]]",
    "pose": "[[image2pose]]",
    "segmentation": "[[image2segmentation]]",
    "entity": "[[image2entity]]",
    "semantic": "[[image2semantic]]",
}
"""README of the published code; that of `semantic` goes on with the name of a class."""
POINTS = 5
"""Point prompts that the network knows; slots without a point are (0, 0), outside."""
BACKGROUND = 0.2
"""Pixels whose brightest channel is below this are no object, for classes; the same as the card's clustering."""
SHARPNESS = 20.0
"""Slope of a class's score with the brightness: 0.15 above `BACKGROUND` is 95 % sure."""
GUIDANCE = 2.0
"""Of several steps; a single step runs without guidance (README of the published code)."""

SETTINGS: Mapping[str, str] = {
    "class": "for --task semantic: the COCO class to look for, such as person",
    "point-order": "yx (default) or xy: which coordinate of a point the network takes first",
    "guidance-scale": f"of several steps, 1 = no guidance, which halves the time (default {GUIDANCE:g})",
    "prompts": "safetensors file of encoded prompts: read if it has them, else the text encoders run and write it",
}

_LICENCE = LicenceTerms(
    spdx="BSD-2-Clause for academic use only; base: Stability AI Community License",
    non_commercial=True,
    gated=True,
    url="https://github.com/aim-uofa/Diception",
)


_CAVEATS = {
    "normals": "the axes of its normals are those of the labels it learnt from, not verified with its weights",
    "segmentation": "the order of a point's coordinates is that of the published evaluation, not verified with its "
    "weights",
}


def _recipe(task: str, output: Output, data: str) -> Recipe:
    return Recipe(
        family="diception",
        task=task,
        checkpoints=("Canyu/DICEPTION",),
        base="stabilityai/stable-diffusion-3-medium-diffusers",
        tiny_vae="madebyollin/taesd3",
        licence=_LICENCE,
        training_data=data,
        outputs=(output,),
        caveat=_CAVEATS.get(task, ""),
        resolution=768,
        keep_aspect=False,
        interpolation="bilinear_antialias",
        multiple_of=16,
        latent_statistic="sample",
        latent_channels=16,
        network_inputs=("noise", "image"),
        noise="normal",
        prompt=PROMPTS[task],
        prompt_tokens=333,
        timestep=1000,
        prediction_type="velocity",
        reduction="mean" if task in ("disparity", "segmentation") else "none",
    )


RECIPES = (
    _recipe(
        "disparity",
        DepthOutput(quantity="relative_disparity", tensor="depth", range=(0.0, 1.0)),
        "OpenImages, with labels of Depth Pro",
    ),
    _recipe(
        "normals",
        NormalsOutput(tensor="normals", axes=("left", "up", "backward")),
        "OpenImages, with labels of StableNormal",
    ),
    _recipe("pose", KeypointsOutput(tensor="keypoints"), "pictures of people with 2D poses"),
    _recipe("segmentation", MaskOutput(tensor="mask", range=(0.0, 1.0)), "SA-1B"),
    _recipe("entity", InstancesOutput(encoding="colors", tensor="instances"), "EntityV2"),
    _recipe("semantic", InstancesOutput(encoding="colors", tensor="instances"), "COCO-Rem"),
)


class Diception(FamilyModel):
    """One prompt of DICEPTION."""

    is_guided = True

    def __init__(
        self,
        recipe: Recipe,
        autoencoder: Autoencoder,
        transformer: SD3Transformer2DModel,
        point_embedder: PointEmbedder,
        prompts: Sequence[EncodedPrompt],
        sampler: Mapping[str, Any],
        point_order: str = "yx",
    ) -> None:
        """
        Args:
            recipe: Its outputs are those of the task.
            autoencoder: Stable Diffusion 3's.
            transformer: With DICEPTION's weights.
            point_embedder: From the same file.
            prompts: The task's, then the empty one.
            sampler: Fields of the card's `sampler`, except the number of steps.
            point_order: `yx` or `xy`, for the card.
        """
        super().__init__(recipe)
        self.autoencoder = autoencoder
        self.transformer = transformer
        self.point_embedder = point_embedder
        self.sampler = dict(sampler)
        self.point_order = point_order
        self.tokens: Tensor
        self.pooled: Tensor
        self.register_buffer("tokens", torch.cat([prompt.tokens for prompt in prompts]))  # (2, T, width)
        self.register_buffer("pooled", torch.cat([prompt.pooled for prompt in prompts]))  # (2, pooled width)

    def encode(self, image: Tensor) -> Tensor:
        """See `FamilyModel`."""
        return self.autoencoder.encode(image)

    def denoise(self, image_latent: Tensor, noisy_latent: Tensor, timestep: Tensor, **conditions: Tensor) -> Tensor:
        """The velocity, noise - clean latent.

        Args:
            image_latent: (1, 16, h, w).
            noisy_latent: (B, 16, h, w).
            timestep: (1,), 1000 times the share of noise.
            conditions: `points` (1, 5, 3) of the task segmentation; `conditional` (1,), see `FamilyModel`.
        """
        network, members = self.transformer, noisy_latent.shape[0]
        noisy = network.pos_embed(noisy_latent)  # (B, N, width)
        image = network.pos_embed(image_latent).expand(members, -1, -1)
        hidden = torch.cat([noisy, image], dim=1)  # (B, 2 N, width)
        text, pooled = self._text(conditions, noisy_latent)
        text = text.expand(members, -1, -1)  # (B, T + 5, width)
        condition = network.time_text_embed(timestep, pooled).expand(members, -1)  # (B, width)
        for block in network.transformer_blocks:
            text, hidden = block(hidden_states=hidden, encoder_hidden_states=text, temb=condition)
        patches = network.proj_out(network.norm_out(hidden[:, : noisy.shape[1]], condition))
        return self._unpatchify(patches, noisy_latent)

    def _text(self, conditions: Mapping[str, Tensor], like: Tensor) -> tuple[Tensor, Tensor]:
        """Text and point tokens (1, T + 5, width), and the pooled text (1, pooled width).

        The unconditional pass has zeros in the place of the points, which are not the tokens of unused slots.
        """
        conditional = conditions.get("conditional")
        if conditional is None:
            conditional = like.new_ones(1)
        points = conditions.get("points")
        if points is None:
            points = like.new_zeros(1, POINTS, 3)
        tokens = conditional * self.tokens[:1] + (1 - conditional) * self.tokens[1:]
        pooled = conditional * self.pooled[:1] + (1 - conditional) * self.pooled[1:]
        text = self.transformer.context_embedder(tokens)
        return torch.cat([text, conditional * self.point_embedder(points)], dim=1), pooled

    def _unpatchify(self, patches: Tensor, latent: Tensor) -> Tensor:
        """(B, N, patch² c) → (B, c, h, w); the channel comes last in a patch."""
        patch, channels = self.transformer.config.patch_size, latent.shape[1]
        rows, columns = latent.shape[2] // patch, latent.shape[3] // patch
        grid = patches.reshape(-1, rows, columns, patch, patch, channels)
        return grid.permute(0, 5, 1, 3, 2, 4).reshape(-1, channels, rows * patch, columns * patch)

    def decode(self, latent: Tensor) -> tuple[Tensor, ...]:
        """What the task's outputs say: one channel in [0, 1], a picture in [0, 1], or normals in [-1, 1]."""
        picture = (self.autoencoder.decode(latent) / 2 + 0.5).clamp(0.0, 1.0)
        if self.recipe.reduction == "mean":
            return (picture.mean(dim=1, keepdim=True),)
        if self.recipe.task == "normals":
            return (2 * picture - 1,)
        if self.recipe.task == "semantic":
            score = SHARPNESS * (picture.amax(dim=1, keepdim=True) - BACKGROUND)
            return torch.cat([torch.zeros_like(score), score], dim=1), picture
        return (picture,)

    def clean_latent(self, prediction: Tensor, noisy_latent: Tensor) -> Tensor:
        """See `FamilyModel`: from noise alone, where velocity = noise - clean latent."""
        return noisy_latent - prediction

    def example_conditions(self, width: int, height: int) -> dict[str, Tensor]:
        """See `FamilyModel`: two points inside, one outside."""
        if self.recipe.task != "segmentation":
            return {}
        points = torch.zeros(1, POINTS, 3)
        points[0, :3] = torch.tensor([[0.3, 0.55, 1.0], [0.71, 0.2, 1.0], [0.9, 0.8, 0.0]])
        return {"points": points}

    def card_inputs(self) -> dict[str, Any]:
        """See `FamilyModel`."""
        if self.recipe.task != "segmentation":
            return {}
        return {"points": PointsInput.model_validate({"tensor": "points", "most": POINTS, "order": self.point_order})}

    def card_sampler(self, steps: int) -> dict[str, Any]:
        """See `FamilyModel`."""
        return {
            "scheduler": "euler_flow",
            "prediction_type": "velocity",
            "latent_channels": self.recipe.latent_channels,
            "latent_downscale": self.recipe.latent_downscale,
            **self.sampler,
            **({"guidance_scale": 1.0} if steps == 1 else {}),
        }


def load(checkpoint: str, task: str, options: LoadOptions) -> Diception:
    """Loads DICEPTION's weights from `checkpoint`, and everything else from Stable Diffusion 3.

    Raises:
        InputError: the checkpoint or the base is incomplete, of another kind, or out of reach; a wrong setting.
    """
    check_settings("diception", options.settings, SETTINGS)
    recipe = _with_class(find_recipe(RECIPES, checkpoint, task), options)
    order = choose_setting(options, "point-order", ("yx", "xy"), "yx")
    guidance = _guidance(options)
    base = CheckpointFiles(options.base or str(recipe.base))
    scheduler = load_scheduler(FlowMatchEulerDiscreteScheduler, base)
    transformer, point_embedder = load_diception(CheckpointFiles(checkpoint, options.revision), base, POINTS)
    autoencoder = load_autoencoder(base, recipe)
    cache = options.settings.get("prompts")
    prompts = encoded_prompts(base, [recipe.prompt, EMPTY], Path(cache).expanduser() if cache else None)
    _check_width(transformer, prompts[0], cache or base.name)
    largest = transformer.config.pos_embed_max_size * transformer.config.patch_size * recipe.latent_downscale
    recipe = replace(recipe, largest_side=largest, prompt_tokens=prompts[0].tokens.shape[1])
    sampler = {
        "num_train_timesteps": scheduler.config.num_train_timesteps,
        "shift": scheduler.config.shift,
        "guidance_scale": guidance,
    }
    return Diception(recipe, autoencoder, transformer, point_embedder, prompts, sampler, order)


def _with_class(recipe: Recipe, options: LoadOptions) -> Recipe:
    """The recipe of `semantic` knows its class: the prompt names it, and the labels."""
    name = options.settings.get("class")
    if recipe.task != "semantic":
        if name is not None:
            raise InputError(f"the setting 'class' belongs to --task semantic, not {recipe.task}: leave it out")
        return recipe
    if name not in COCO_CLASSES:
        raise InputError(
            f"--task semantic needs --set class=NAME with one of the {len(COCO_CLASSES)} classes of COCO "
            f"({', '.join(COCO_CLASSES[:5])}, ...), not '{name}'"
        )
    labels = (
        Label(id=0, name="background", color=(0, 0, 0)),
        Label(id=1, name=name, color=(255, 255, 255), is_thing=True),
    )
    semantic = SemanticOutput(encoding="logits", tensor="semantic", labels=labels)
    return replace(recipe, prompt=f"{recipe.prompt} {name}", outputs=(semantic, *recipe.outputs))


def _guidance(options: LoadOptions) -> float:
    text = options.settings.get("guidance-scale", str(GUIDANCE))
    try:
        scale = float(text)
    except ValueError:
        scale = math.nan
    if not 1.0 <= scale < math.inf:
        raise InputError(f"the setting 'guidance-scale' must be a number from 1 on, got '{text}'")
    return scale


def _check_width(transformer: SD3Transformer2DModel, prompt: EncodedPrompt, where: str) -> None:
    needed = transformer.config.joint_attention_dim, transformer.config.pooled_projection_dim
    found = prompt.tokens.shape[2], prompt.pooled.shape[1]
    if found != needed:
        raise InputError(
            f"the prompts of {where} are {found[0]} and {found[1]} numbers wide, the transformer takes "
            f"{needed[0]} and {needed[1]}: they belong to another base"
        )
