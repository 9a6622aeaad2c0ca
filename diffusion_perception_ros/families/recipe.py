"""What a published checkpoint expects and what its numbers mean, and the module that every family becomes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.card import LicenceTerms, Output


@dataclass(frozen=True)
class Recipe:
    """One kind of published checkpoint. Everything that its numbers depend on is here or in its config files."""

    family: str
    task: str
    """Name on the command line: `depth`, `disparity`, `normals`, ..."""
    checkpoints: tuple[str, ...]
    """Published hub ids, the recommended one first."""
    licence: LicenceTerms
    training_data: str
    """For the card: what the published weights were trained on."""
    outputs: tuple[Output, ...]
    """Quantity, range and axes of every output tensor, as the model card states them."""
    caveat: str = ""
    """What is not known for sure about the published weights, for the card."""
    variant: str = ""
    """Kinds of one family that differ in the network, e.g. `d` and `g` of Lotus."""
    base: str | None = None
    """Hub id of the checkpoint that gives the parts which this one lacks, None if it is complete."""
    tiny_vae: str = "madebyollin/taesd"
    """Hub id of an AutoencoderTiny with the same latents as the VAE."""

    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """The network's picture is (pixel / 255 - mean) / std, by default in [-1, 1]."""
    resolution: int = 768
    """Length of the longest side that the publisher resizes pictures to, up or down, keeping the aspect."""
    fixed_size: tuple[int, int] | None = None
    """Width and height that every picture is stretched to, for families that know only one size."""
    keep_aspect: bool = True
    """False: the publisher stretches every picture to `resolution` x `resolution`."""
    resize_dtype: Literal["float32", "uint8"] = "float32"
    """Type of the picture while the publisher's code resizes it: `uint8` rounds the resized pixels."""
    interpolation: Literal["linear", "area", "cubic", "lanczos", "bilinear_antialias", "nearest_exact"] = "area"
    """How the publisher resizes images (`inference.card.InputSize`)."""
    restore: Literal["linear", "bilinear_antialias", "nearest_exact"] = "linear"
    """How the publisher gives the maps the image's size again."""
    multiple_of: int = 8
    """Sides that the network can take at all: those of the latent are whole numbers."""
    largest_side: int | None = None
    """Where the network's positions end, None = nowhere."""
    dynamic_multiple_of: int = 64
    """Sides for which one graph serves all sizes: every level of the U-Net halves without a remainder."""
    any_size: bool = False
    """The levels of the network meet at every size: one graph takes the very sizes that the publisher's code makes."""

    latent_statistic: Literal["mean", "sample"] = "mean"
    """What the published code takes from the VAE's posterior. We always take the mean: it needs no random number."""
    latent_channels: int = 4
    """Of the noisy latent."""
    latents: int = 1
    """Latents of the VAE that the noisy latent holds, stacked on the channel axis."""
    latent_downscale: int = 8
    network_inputs: tuple[Literal["image", "noise", "prompt"], ...] = ("image",)
    """Latents in the order in which they are stacked on the channel axis."""
    noise: Literal["none", "zeros", "normal"] = "none"
    """What the noisy latent starts as in the published code; `none`: the network takes no noisy latent."""
    prompt: str = ""
    prompt_tokens: int = 2
    """Length of the text constant: an unpadded empty prompt is two tokens, begin and end."""
    timestep: int = 999
    """Of a single step."""
    prediction_type: Literal["sample", "epsilon", "v_prediction", "velocity"] = "sample"
    """What the network's output is; names of diffusers, `velocity` is flow matching's noise - data."""
    prediction_sign: float = 1.0
    """The clean latent of a single step is this times the network's output (where the noise does not matter)."""
    reduction: Literal["mean", "none"] = "none"
    """How the decoded picture's three channels become the output."""

    @property
    def vae_channels(self) -> int:
        """Channels of one of the VAE's latents."""
        return self.latent_channels // self.latents


@dataclass(frozen=True)
class LoadOptions:
    """How to load a checkpoint, besides its id and task."""

    revision: str | None = None
    """Branch, tag or commit of a hub id, None = the default branch."""
    base: str | None = None
    """Folder or hub id of the base checkpoint, None = the recipe's."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """A family's own settings by name, from `--set NAME=VALUE`; its `SETTINGS` says which it knows."""


class FamilyModel(nn.Module, ABC):
    """A family's checkpoint as three stages, which can be run one by one or fused into a single step.

    Subclasses implement `encode`, `denoise` and `decode`. Tensors are float32: image (1, 3, H, W) normalised as the
    recipe says; latents (B, c, H / downscale, W / downscale), B > 1 only for the members of an ensemble. A subclass
    keeps its VAE in the attribute `autoencoder`, so that the exporter can put a smaller one in its place.
    """

    encode_conditions: tuple[str, ...] = ()
    """Those of the `example_conditions` that `encode_prompted` takes; `denoise` takes the others."""
    is_guided: bool = False
    """`denoise` takes `conditional`, (1,) float32: 1 for the prompt, 0 for the empty one; 1 if it is not given."""
    has_picture_latent: bool = True
    """The clean latent is one of the VAE's, so that another decoder can make a picture of it."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe

    @property
    def image_latent_channels(self) -> int:
        """Channels of what `encode_prompted` returns."""
        return self.recipe.latent_channels

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the tensors that `decode` returns, in its order."""
        return tuple(output.tensor for output in self.recipe.outputs)

    @abstractmethod
    def encode(self, image: Tensor) -> Tensor:
        """Picture → image latent, scaled as the network expects it."""

    def encode_prompted(self, image: Tensor, **conditions: Tensor) -> Tensor:
        """`encode` for families whose prompt is a picture too.

        Args:
            image: (1, 3, H, W).
            conditions: As `encode_conditions` names them.
        """
        return self.encode(image)

    @abstractmethod
    def denoise(self, image_latent: Tensor, noisy_latent: Tensor, timestep: Tensor, **conditions: Tensor) -> Tensor:
        """One pass of the network; the meaning of the result is the recipe's `prediction_type`.

        Args:
            image_latent: (1, c, h, w), from `encode_prompted`.
            noisy_latent: (B, c, h, w); families without noise ignore it.
            timestep: (1,) float32.
            conditions: As `example_conditions` names them, and `conditional` of guided families.
        """

    @abstractmethod
    def decode(self, latent: Tensor) -> tuple[Tensor, ...]:
        """Clean latent → output tensors as the card describes them."""

    def clean_latent(self, prediction: Tensor, noisy_latent: Tensor) -> Tensor:
        """The clean latent of a single step from the recipe's timestep. Override where the noise matters."""
        return prediction if self.recipe.prediction_sign == 1.0 else prediction * self.recipe.prediction_sign

    def one_step(self, image: Tensor, noise: Tensor | None = None, **conditions: Tensor) -> Tensor:
        """The clean latent of a single step. `noise` is the noisy latent, zeros if it is None."""
        prompts = {name: conditions.pop(name) for name in self.encode_conditions}
        image_latent = self.encode_prompted(image, **prompts)
        if noise is None:
            noise = image_latent.new_zeros(1, self.recipe.latent_channels, *image_latent.shape[2:])
        timestep = torch.full((1,), float(self.recipe.timestep), device=image.device)
        prediction = self.denoise(image_latent, noise, timestep, **conditions)
        return self.clean_latent(prediction, noise)

    def with_latent(
        self, image: Tensor, noise: Tensor | None = None, **conditions: Tensor
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """The outputs of a single step, and the clean latent that they are read from."""
        latent = self.one_step(image, noise, **conditions)
        return self.decode(latent), latent

    def forward(self, image: Tensor, noise: Tensor | None = None, **conditions: Tensor) -> tuple[Tensor, ...]:
        """The fused single step: picture → outputs."""
        return self.with_latent(image, noise, **conditions)[0]

    def check_fused(self) -> None:
        """Whether a single step gives something.

        Raises:
            InputError: it does not.
        """

    def example_conditions(self, width: int, height: int) -> dict[str, Tensor]:
        """Further inputs of the stages and of `forward`, by name, with an example for a picture of this size."""
        return {}

    def card_outputs(self) -> tuple[Output, ...]:
        """What the card says about the outputs."""
        return self.recipe.outputs

    def card_inputs(self) -> dict[str, Any]:
        """Fields of the card that describe the further inputs (`second_image`, `points`, `prompt_mask`)."""
        return {}

    def card_sampler(self, steps: int) -> dict[str, Any]:
        """The card's `sampler` for several steps.

        Raises:
            InputError: the family knows only one step.
        """
        raise InputError(f"{self.recipe.family} models predict in one step: give --steps 1, not {steps}")


def recipes_of_task(recipes: Sequence[Recipe], checkpoint: str, task: str) -> tuple[Recipe, ...]:
    """The recipes of a task, of all variants; they agree on the sizes that the network takes.

    Raises:
        InputError: there is none, or `checkpoint` is a published one of another task.
    """
    tasks = list(dict.fromkeys(recipe.task for recipe in recipes))
    if task not in tasks:
        raise InputError(f"{recipes[0].family} has no task '{task}': choose --task {' or '.join(tasks)}")
    published = [recipe.task for recipe in recipes if checkpoint in recipe.checkpoints]
    if published and task not in published:
        raise InputError(f"{checkpoint} was published for the task '{published[0]}': give --task {published[0]}")
    return tuple(recipe for recipe in recipes if recipe.task == task)


def find_recipe(recipes: Sequence[Recipe], checkpoint: str, task: str, variant: str = "") -> Recipe:
    """The recipe of a task and variant.

    Raises:
        InputError: there is none, or `checkpoint` is a published one of another task.
    """
    for recipe in recipes_of_task(recipes, checkpoint, task):
        if recipe.variant == variant:
            return recipe
    raise InputError(f"{recipes[0].family} has no published recipe for the task '{task}' of variant '{variant}'")


def choose_setting(options: LoadOptions, name: str, choices: Sequence[str], default: str) -> str:
    """The value of one of `LoadOptions.settings`.

    Raises:
        InputError: it is none of the choices.
    """
    value = options.settings.get(name, default)
    if value not in choices:
        raise InputError(f"the setting '{name}' is {' or '.join(choices)}, not '{value}'")
    return value


def check_settings(family: str, given: Mapping[str, str], known: Mapping[str, str]) -> None:
    """Checks the names of `LoadOptions.settings`.

    Args:
        known: Name → one line of help.

    Raises:
        InputError: the family does not know one of them.
    """
    unknown = sorted(set(given) - set(known))
    if unknown:
        choices = "; ".join(f"{name}: {text}" for name, text in known.items()) or "none"
        raise InputError(f"{family} has no setting '{unknown[0]}'; it knows {choices}")
