"""From a family's PyTorch module to a model folder: ONNX graphs, card, README, and proof that they agree."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diffusion_perception_ros.atomic_folder import replacing_folder
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.families.graphs import (
    CLEAN_LATENT,
    OPSET,
    Bfloat16Weights,
    Graph,
    Sizes,
    fused_graph,
    graph_files,
    quantize_graph,
    stage_graphs,
    write_graph,
)
from diffusion_perception_ros.families.onnx_check import Feed, compare_graph, run_module
from diffusion_perception_ros.families.readme import model_readme
from diffusion_perception_ros.families.recipe import FamilyModel, Recipe
from diffusion_perception_ros.families.smaller_vae import use_linear_decoder, use_tiny_vae
from diffusion_perception_ros.inference.card import (
    NOISY_LATENT,
    SCHEMA_VERSION,
    ImageInput,
    InputSize,
    ModelCard,
    NoiseInput,
    Source,
    sha256_of,
    write_card,
)


Picture = npt.NDArray[np.uint8]

_FP32_TOLERANCE = 1e-3
"""Largest difference to PyTorch that a float32 graph may have."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True)
class ExportOptions:
    """What the checkpoint itself does not say."""

    name: str
    """Of the model, on its card."""
    checkpoint: str
    """Folder or hub id, with `@revision` if one was asked for; for the card."""
    size: tuple[int, int] | None
    """Width and height of the graph's picture, None = one graph for all sizes."""
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


def export_family(model: FamilyModel, output: Path, pictures: Sequence[Picture], options: ExportOptions) -> ModelCard:
    """Writes the model folder `output`, complete or not at all.

    The model is used up: its weights are converted to the precision asked for.

    Args:
        pictures: (H, W, 3) uint8 RGB, to compare with PyTorch on; random pictures are added.

    Raises:
        InputError: options that contradict each other or the family, the output exists or cannot be written, or the
            graph disagrees with PyTorch.
    """
    check_options(model.recipe, options)
    noise = choose_noise(model.recipe, options)
    sampler = None if options.is_fused else _sampler(model, options, noise)
    width, height = options.size or _default_size(model.recipe)
    sizes = Sizes(model, width, height, dynamic=options.size is None)
    with replacing_folder(output, options.overwrite) as folder:
        feeds = _feeds(model, pictures, width, height, with_noise=noise.kind != "none")
        parity = _exchange_vae(model, options, feeds)
        if options.is_fused:
            graphs: tuple[Graph, ...] = (_fused(model, sizes, noise),)
        else:
            graphs = stage_graphs(model, sizes)
        checks = _checks(model, graphs, feeds, noise)
        _refuse_wrong_weights(checks, options.checkpoint)
        for graph, (inputs, expected) in zip(graphs, checks, strict=True):
            path = folder / graph.file
            _write(graph, path, options.precision)
            differences = compare_graph(path, graph.outputs, inputs, expected)
            _refuse_wrong_graph(graph, differences, options.precision)
            parity |= differences
        card = _card(model, options, noise, sampler, parity, folder, graphs)
        write_card(card, folder)
        (folder / "README.md").write_text(model_readme(model.recipe, card), encoding="utf-8")
    return card


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


def standard_noise(shape: Sequence[int], seed: int) -> Tensor:
    """The noise that the runtime draws for the same seed."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(tuple(shape), dtype=np.float32))


def _default_size(recipe: Recipe) -> tuple[int, int]:
    """To trace and compare with when the graph is for all sizes."""
    unit = recipe.dynamic_multiple_of
    return 4 * unit, 3 * unit


def _feeds(
    model: FamilyModel, pictures: Sequence[Picture], width: int, height: int, with_noise: bool
) -> list[dict[str, Tensor]]:
    """Inputs of `FamilyModel.forward`: the pictures given, and as many random ones."""
    recipe = model.recipe
    rng = np.random.default_rng(1)
    random = [rng.integers(0, 256, (height, width, 3), np.uint8) for _ in pictures]
    mean, std = np.array(recipe.mean, np.float32), np.array(recipe.std, np.float32)
    images = [
        (cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255 - mean) / std
        for picture in [*pictures, *random]
    ]
    tensors = [torch.from_numpy(image.transpose(2, 0, 1)[None].copy()) for image in images]
    shape = (1, recipe.latent_channels, height // recipe.latent_downscale, width // recipe.latent_downscale)
    feeds = []
    for number, image in enumerate(tensors):
        conditions = {
            # A second picture is another one than the first.
            name: tensors[number - 1] if value.shape == image.shape else value
            for name, value in model.example_conditions(width, height).items()
        }
        noise = {"noise": standard_noise(shape, number)} if with_noise else {}
        feeds.append({"image": image, **noise, **conditions})
    return feeds


def _exchange_vae(model: FamilyModel, options: ExportOptions, feeds: Sequence[Feed]) -> dict[str, float]:
    if options.vae == "taesd":
        return use_tiny_vae(model, options.tiny_vae or model.recipe.tiny_vae, feeds)
    if options.vae == "none":
        return use_linear_decoder(model, feeds)
    return {}


def _fused(model: FamilyModel, sizes: Sizes, noise: Noise) -> Graph:
    fixed = None if noise.seed is None else standard_noise(sizes.latent.shape, noise.seed)
    return fused_graph(model, sizes, noise.kind == "input", fixed if noise.kind == "fixed" else None)


Check = tuple[list[dict[str, Tensor]], list[list[npt.NDArray[np.float32]]]]
"""Inputs of a graph, and the outputs that PyTorch gives for them in float32."""


def _checks(
    model: FamilyModel, graphs: Sequence[Graph], feeds: Sequence[dict[str, Tensor]], noise: Noise
) -> list[Check]:
    """What to compare each graph on. Must run before the weights are converted to another precision."""
    if len(graphs) == 1:
        if noise.kind != "input":
            feeds = [{name: value for name, value in feed.items() if name != "noise"} for feed in feeds]
        return [(list(feeds), run_module(graphs[0].module, feeds))]
    encode, denoise, decode = graphs
    images = [{name: feed[name] for name in encode.inputs} for feed in feeds]
    encoded = run_module(encode.module, images)
    denoising = []
    for number, (feed, (image_latent,)) in enumerate(zip(feeds, encoded, strict=True)):
        given = {
            **feed,
            "image_latent": torch.from_numpy(image_latent),
            "noisy_latent": torch.cat([feed["noise"], standard_noise(feed["noise"].shape, 99)]),
            "timestep": denoise.inputs["timestep"],
            "conditional": torch.tensor([float(number % 2)]),
        }
        denoising.append({name: given[name] for name in denoise.inputs})
    predictions = run_module(denoise.module, denoising)
    latents = [
        {"latent": model.clean_latent(torch.from_numpy(prediction[:1]), feed["noisy_latent"][:1])}
        for (prediction,), feed in zip(predictions, denoising, strict=True)
    ]
    return [(images, encoded), (denoising, predictions), (latents, run_module(decode.module, latents))]


def _write(graph: Graph, path: Path, precision: str) -> None:
    if precision == "int8":
        source = path.with_name(f"{path.stem}_float32.onnx")
        write_graph(graph, source)
        quantize_graph(source, path)
        for file in graph_files(source):
            os.remove(file)
        return
    if precision == "fp16":
        graph.module.half()
    write_graph(graph, path, Bfloat16Weights(graph.module) if precision == "bf16" else None)


def _refuse_wrong_weights(checks: Sequence[Check], checkpoint: str) -> None:
    """Before the minutes that an export takes."""
    if not all(np.isfinite(array).all() for _, expected in checks for arrays in expected for array in arrays):
        raise InputError(
            f"the weights of {checkpoint} give values that are not numbers: download the checkpoint again"
        )


def _refuse_wrong_graph(graph: Graph, differences: Mapping[str, float], precision: str) -> None:
    largest = max(differences.values())
    if not np.isfinite(largest):
        raise InputError(
            f"in {precision} the graph '{graph.name}' gives values that are not numbers: choose another --precision"
        )
    if precision == "fp32" and largest > _FP32_TOLERANCE:
        raise InputError(f"the graph '{graph.name}' disagrees with PyTorch: {dict(differences)}; report this")


def _sampler(model: FamilyModel, options: ExportOptions, noise: Noise) -> dict[str, Any]:
    if noise.kind == "none" and options.ensemble > 1:
        raise InputError(f"this {model.recipe.family} model takes no noise: all members of an ensemble would be equal")
    fields = model.card_sampler(options.steps)
    start = "zeros" if noise.kind in ("zeros", "none") else "noise"
    return {**fields, "num_inference_steps": options.steps, "ensemble_size": options.ensemble, "start": start}


def _card(
    model: FamilyModel,
    options: ExportOptions,
    noise: Noise,
    sampler: dict[str, Any] | None,
    parity: dict[str, float],
    folder: Path,
    graphs: Sequence[Graph],
) -> ModelCard:
    recipe = model.recipe
    files = [file for graph in graphs for file in graph_files(folder / graph.file)]
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
        input=ImageInput(tensor="image", size=_size_rule(recipe, options), mean=recipe.mean, std=recipe.std),
        noise=_noise_input(recipe, options, noise),
        outputs=model.card_outputs(),
        parity=parity,
        files={file.name: sha256_of(file) for file in files},
        **model.card_inputs(),
        **graph_fields,
    )


def _size_rule(recipe: Recipe, options: ExportOptions) -> InputSize:
    if options.size is not None:
        width, height = options.size
        return InputSize(rule="fixed", width=width, height=height, interpolation=recipe.interpolation)
    return InputSize(
        rule="longest_side",
        longest_side=recipe.resolution,
        multiple_of=recipe.dynamic_multiple_of,
        interpolation=recipe.interpolation,
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
