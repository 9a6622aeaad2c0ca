"""From a published checkpoint, on the hub or on this disk, to a model folder: for `export` and for `models fetch`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.export.exporter import Picture, export_family
from diffusion_perception_ros.export.options import ExportOptions, check_options, default_size
from diffusion_perception_ros.families import family_module
from diffusion_perception_ros.families.recipe import LoadOptions, recipes_of_task
from diffusion_perception_ros.inference.card import ModelCard


@dataclass(frozen=True)
class Published:
    """Which checkpoint, and what it predicts."""

    family: str
    """Name on the command line, one of `families.FAMILIES`."""
    checkpoint: str
    """Hub id or folder."""
    task: str
    load: LoadOptions = field(default_factory=LoadOptions)


def export_published(
    published: Published,
    output: Path,
    options: ExportOptions,
    images: Sequence[Picture],
    *,
    is_default_size: bool,
    say: Callable[[str], None],
) -> ModelCard:
    """Checks what is asked for, loads the checkpoint and writes the model folder.

    Args:
        images: (H, W, 3) uint8 RGB each, to compare with PyTorch on.
        is_default_size: Take the family's own size in the place of the options'.
        say: Told what is being done.

    Raises:
        InputError: options that contradict each other or the family, a checkpoint that cannot be used, an output that
            may not be replaced, or a graph that disagrees with PyTorch.
    """
    if options.tiny_vae and options.vae != "taesd":
        raise InputError("--tiny-vae has a use only with --vae taesd")
    fewest = 2 if options.vae == "none" else 1  # one to fit the linear decoder, another to measure it
    if len(images) < fewest:
        raise InputError(f"--check-pictures must be at least {fewest}, got {len(images)}")
    check_published(published, options, is_default_size)
    module = family_module(published.family)
    say(f"loading {published.checkpoint}")
    model = module.load(published.checkpoint, published.task, published.load)
    if is_default_size:
        options = replace(options, size=default_size(model.recipe))
    say(f"exporting {published.checkpoint} and comparing it with PyTorch")
    return export_family(model, output, images, options)


def check_published(published: Published, options: ExportOptions, is_default_size: bool) -> None:
    """What can be said before anything is downloaded or loaded.

    Raises:
        InputError: a task or size that the family does not have, or options that contradict each other.
    """
    recipe = recipes_of_task(family_module(published.family).RECIPES, published.checkpoint, published.task)[0]
    if recipe.fixed_size is None:  # otherwise the checkpoint's own config says which size it is
        check_options(recipe, replace(options, size=default_size(recipe)) if is_default_size else options)
