"""What is asked of an export, and whether the family can do it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.families.recipe import Recipe


_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True)
class ExportOptions:
    """What the checkpoint itself does not say."""

    name: str
    """Of the model, on its card."""
    checkpoint: str = ""
    """Folder or hub id, with `@revision` if one was asked for; for the card."""
    size: tuple[int, int] | None = None
    """Width and height of the graph's image, None = one graph for all sizes."""
    precision: Literal["fp32", "fp16", "bf16", "int8"] = "fp32"
    steps: int = 1
    ensemble: int = 1
    noise: str | None = None
    """`zeros`, `input` or `seed:N`; None = as the family was trained."""
    vae: Literal["full", "taesd", "none"] = "full"
    tiny_vae: str | None = None
    """Folder or hub id of the AutoencoderTiny for `taesd`, None = the recipe's."""
    command: str | None = None
    overwrite: bool = False
    metric: bool = False
    """Of onestep networks: declare the depth metric. Only after real images have shown that it is."""
    credits: str | None = None
    """Attribution of the training data, becomes CREDITS.md."""

    @property
    def is_fused(self) -> bool:
        """One graph for one step, without an ensemble."""
        return self.steps == 1 and self.ensemble == 1


@dataclass(frozen=True)
class Noise:
    """What a graph starts from."""

    kind: Literal["none", "zeros", "input", "fixed"]
    """`fixed`: a constant of the graph."""
    seed: int | None = None


def check_options(recipe: Recipe, options: ExportOptions) -> None:
    """Checks name, size and steps before anything is loaded or computed.

    Raises:
        InputError: a name that a card cannot have, a size that the family cannot take, no step at all.
    """
    if not _NAME.fullmatch(options.name):
        raise InputError(
            f"'{options.name}' cannot be a model's name: lower-case letters, digits, '.', '_' and '-'; give --name"
        )
    if options.steps < 1 or options.ensemble < 1:
        raise InputError(f"--steps {options.steps} and --ensemble {options.ensemble} must be at least 1")
    if recipe.fixed_size is not None and options.size != recipe.fixed_size:
        fixed = f"{recipe.fixed_size[0]}x{recipe.fixed_size[1]}"
        raise InputError(f"{recipe.family} models know only pictures of {fixed}: give --size {fixed}")
    if options.size is None:
        if not recipe.keep_aspect:
            side = recipe.resolution
            raise InputError(f"{recipe.family} stretches all pictures to one size: give --size {side}x{side}")
        return
    unit = recipe.multiple_of
    most = (recipe.largest_side or max(options.size) + unit) // unit
    allowed = tuple(min(max(round(side / unit), 1), most) * unit for side in options.size)
    if options.size != allowed:
        raise InputError(
            f"{recipe.family} cannot take {options.size[0]}x{options.size[1]} pictures, sides must be multiples of "
            f"{unit}{f' up to {recipe.largest_side}' if recipe.largest_side else ''}: the nearest size is "
            f"{allowed[0]}x{allowed[1]}"
        )


def default_size(recipe: Recipe) -> tuple[int, int] | None:
    """The size that a family is exported with unless another is asked for; None = one graph that keeps the aspect."""
    if recipe.fixed_size is not None or recipe.keep_aspect:
        return recipe.fixed_size
    return recipe.resolution, recipe.resolution


def dynamic_unit(recipe: Recipe, is_fused: bool, noise: Noise) -> int:
    """What the sides of a graph for all sizes are multiples of.

    One pixel where the network takes any size. Where noise is an input, its size has to follow from the image's.
    """
    if not recipe.any_size:
        return recipe.dynamic_multiple_of
    return 1 if is_fused and noise.kind in ("none", "zeros") else recipe.latent_downscale


def choose_noise(recipe: Recipe, options: ExportOptions) -> Noise:
    """What the graphs start from.

    Raises:
        InputError: the family takes no noise, `seed:N` without a number or for a graph of all sizes.
    """
    if recipe.noise == "none":
        if options.noise not in (None, "zeros"):
            raise InputError(f"this {recipe.family} model takes no noise: leave --noise out")
        return Noise("none")
    text = options.noise or ("input" if recipe.noise == "normal" else "zeros")
    if text == "zeros":
        return Noise("zeros")
    if text == "input":
        return Noise("input", 0)
    seed = text.removeprefix("seed:")
    if seed == text or not seed.isdecimal():
        raise InputError(f"--noise is 'zeros', 'input' or 'seed:N' with a whole number N, got '{text}'")
    if not options.is_fused:
        return Noise("input", int(seed))
    if options.size is None:
        raise InputError("--noise seed:N is a constant of one size: give --size WxH, or --noise input")
    return Noise("fixed", int(seed))
