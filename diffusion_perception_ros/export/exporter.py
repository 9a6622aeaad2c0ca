"""From a family's PyTorch module to a model folder: ONNX graphs, card, README, and proof that they agree."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.export.card import model_card, sampler_fields
from diffusion_perception_ros.export.graphs import (
    Bfloat16Weights,
    Graph,
    Sizes,
    fused_graph,
    graph_files,
    quantize_graph,
    stage_graphs,
    write_graph,
)
from diffusion_perception_ros.export.model_folder import new_model_folder, write_documents
from diffusion_perception_ros.export.onnx_check import Feed, compare_graph, refuse_wrong_graph, run_module
from diffusion_perception_ros.export.options import (
    ExportOptions,
    Noise,
    check_options,
    choose_noise,
    dynamic_unit,
)
from diffusion_perception_ros.export.readme import published_readme
from diffusion_perception_ros.export.smaller_vae import use_linear_decoder, use_tiny_vae
from diffusion_perception_ros.families.recipe import FamilyModel, Recipe
from diffusion_perception_ros.inference.backends.mixed_precision import (
    convert_precision,
    overflowing_nodes,
    sensitive_nodes,
)
from diffusion_perception_ros.inference.card import ModelCard, write_card


Picture = npt.NDArray[np.uint8]


def export_family(
    model: FamilyModel,
    output: Path,
    pictures: Sequence[Picture],
    options: ExportOptions,
    readme: Callable[[Recipe, ModelCard], str] = published_readme,
) -> ModelCard:
    """Writes the model folder `output`, complete or not at all.

    The model is used up: its weights are converted to the precision asked for.

    Args:
        pictures: (H, W, 3) uint8 RGB, to compare with PyTorch on; random pictures are added.
        readme: The text of README.md.

    Raises:
        InputError: options that contradict each other or the family, the output exists or cannot be written, or the
            graph disagrees with PyTorch.
    """
    check_options(model.recipe, options)
    if options.is_fused:
        model.check_fused()
    noise = choose_noise(model.recipe, options)
    sampler = None if options.is_fused else sampler_fields(model, options, noise)
    unit = None if options.size is not None else dynamic_unit(model.recipe, options.is_fused, noise)
    width, height = options.size or _example_size(model.recipe, unit or 1)
    sizes = Sizes(model, width, height, unit)
    with new_model_folder(output, options.overwrite) as folder:
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
            _write(graph, path, options.precision, inputs)
            differences = compare_graph(path, graph.outputs, inputs, expected)
            refuse_wrong_graph(graph.name, differences, options.precision)
            parity |= differences
        card = model_card(model, options, noise, sampler, parity, folder, graphs)
        write_card(card, folder)
        write_documents(folder, readme(model.recipe, card), options.credits)
    return card


def standard_noise(shape: Sequence[int], seed: int) -> Tensor:
    """The noise that the runtime draws for the same seed."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(tuple(shape), dtype=np.float32))


def _example_size(recipe: Recipe, unit: int) -> tuple[int, int]:
    """To trace and compare with when the graph is for all sizes; where any is allowed, one that halves badly."""
    return (216 // unit * unit, 152 // unit * unit) if recipe.any_size else (4 * unit, 3 * unit)


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


def _write(graph: Graph, path: Path, precision: str, feeds: Sequence[Feed]) -> None:
    """Writes the ONNX file; int8 and fp16 are made from one in float32, which does not stay."""
    if precision == "bf16":
        write_graph(graph, path, Bfloat16Weights(graph.module))
        return
    if precision == "fp32":
        write_graph(graph, path)
        return
    source = path.with_name(f"{path.stem}_float32.onnx")
    write_graph(graph, source)
    if precision == "int8":
        quantize_graph(source, path)
    else:
        keep = sensitive_nodes(source, "fp16")
        for feed in (feeds[0], feeds[-1]):  # an image, and a random one
            keep |= overflowing_nodes(source, {name: tensor.numpy() for name, tensor in feed.items()})
        convert_precision(source, path, "fp16", keep)
    for file in graph_files(source):
        os.remove(file)


def _refuse_wrong_weights(checks: Sequence[Check], checkpoint: str) -> None:
    """Before the minutes that an export takes."""
    if not all(np.isfinite(array).all() for _, expected in checks for arrays in expected for array in arrays):
        raise InputError(
            f"the weights of {checkpoint} give values that are not numbers: download the checkpoint again"
        )
