"""The model card of an exported family."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.export.graphs import CLEAN_LATENT, OPSET, Graph, graph_files
from diffusion_perception_ros.export.options import ExportOptions, Noise, dynamic_unit
from diffusion_perception_ros.families.recipe import FamilyModel, Recipe
from diffusion_perception_ros.inference.card import (
    NOISY_LATENT,
    SCHEMA_VERSION,
    ImageInput,
    InputSize,
    ModelCard,
    NoiseInput,
    Source,
    sha256_of,
)


def sampler_fields(model: FamilyModel, options: ExportOptions, noise: Noise) -> dict[str, Any]:
    """The card's `sampler`.

    Raises:
        InputError: the family knows only one step, or takes no noise that an ensemble could vary.
    """
    if noise.kind == "none" and options.ensemble > 1:
        raise InputError(f"this {model.recipe.family} model takes no noise: all members of an ensemble would be equal")
    fields = model.card_sampler(options.steps)
    start = "zeros" if noise.kind in ("zeros", "none") else "noise"
    return {**fields, "num_inference_steps": options.steps, "ensemble_size": options.ensemble, "start": start}


def model_card(
    model: FamilyModel,
    options: ExportOptions,
    noise: Noise,
    sampler: dict[str, Any] | None,
    parity: dict[str, float],
    folder: Path,
    graphs: Sequence[Graph],
) -> ModelCard:
    """The card for graphs that are written in `folder`, with the hashes of their files."""
    recipe = model.recipe
    files = [file for graph in graphs for file in graph_files(folder / graph.file)]
    size = _size_rule(recipe, options, noise, has_conditions=bool(model.card_inputs()))
    graph_fields: dict[str, Any] = {"graph": graphs[0].file}
    if sampler is not None:
        graph_fields = {"graphs": {graph.name: graph.file for graph in graphs}, "sampler": sampler}
    return ModelCard(
        schema_version=SCHEMA_VERSION,
        name=options.name,
        family=recipe.family,
        description=_description(recipe, options),
        licence=recipe.licence.spdx,
        licence_terms=recipe.licence,
        source=Source(checkpoint=options.checkpoint, training_data=recipe.training_data, command=options.command),
        opset=OPSET,
        precision=options.precision,
        input=ImageInput(tensor="image", size=size, mean=recipe.mean, std=recipe.std),
        noise=_noise_input(recipe, options, noise),
        outputs=model.card_outputs(),
        parity=parity,
        files={file.name: sha256_of(file) for file in files},
        **model.card_inputs(),
        **graph_fields,
    )


def _size_rule(recipe: Recipe, options: ExportOptions, noise: Noise, has_conditions: bool) -> InputSize:
    """As the publisher resizes; to a fixed size of another aspect as little as can be: with a border, if need be."""
    fields: dict[str, Any] = {"interpolation": recipe.interpolation}
    if recipe.interpolation == "bilinear_antialias" and recipe.resize_dtype == "float32":
        fields["round_pixels"] = False
    if options.vae != "none":  # its maps are an eighth of the image's size
        fields["restore"] = recipe.restore
    if options.size is not None:
        width, height = options.size
        keeps_aspect = recipe.keep_aspect and recipe.fixed_size is None and not has_conditions
        return InputSize(rule="fixed", width=width, height=height, fit="pad" if keeps_aspect else "stretch", **fields)
    return InputSize(
        rule="longest_side",
        longest_side=recipe.resolution,
        multiple_of=dynamic_unit(recipe, options.is_fused, noise),
        rounding="down" if recipe.any_size else "nearest",
        **fields,
    )


def _noise_input(recipe: Recipe, options: ExportOptions, noise: Noise) -> NoiseInput | None:
    if noise.kind != "input" or noise.seed is None:
        return None
    return NoiseInput(
        tensor="noise" if options.is_fused else NOISY_LATENT,
        channels=recipe.latent_channels,
        downscale=recipe.latent_downscale,
        seed=noise.seed,
        latent_tensor=CLEAN_LATENT if options.is_fused else None,
    )


def _description(recipe: Recipe, options: ExportOptions) -> str:
    variant = f"-{recipe.variant.upper()}" if recipe.variant else ""
    steps = "one step" if options.steps == 1 else f"{options.steps} steps"
    parts = [f"{recipe.family.capitalize()}{variant}, {recipe.task}, {steps}"]
    if options.ensemble > 1:
        parts.append(f"ensemble of {options.ensemble}")
    if options.vae == "taesd":
        parts.append("tiny autoencoder in place of the VAE")
    if options.vae == "none":
        parts.append("linear decoder in place of the VAE's")
    if options.precision == "bf16":
        parts.append("weights stored in bf16, computed in fp32")
    if options.precision == "int8":
        parts.append("linear layers in int8, dynamically quantised")
    if recipe.caveat:
        parts.append(recipe.caveat)
    return ", ".join(parts)
