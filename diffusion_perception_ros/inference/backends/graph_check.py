"""A graph must be what its card says: inputs and outputs by name, their rank and their channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffusion_perception_ros.inference.backends.backend import Node
from diffusion_perception_ros.inference.card import (
    NOISY_LATENT,
    CardError,
    DepthOutput,
    GraphRole,
    InstancesOutput,
    ModelCard,
    Output,
    SemanticOutput,
)


if TYPE_CHECKING:
    import onnx

_Shape = tuple[int | None, ...]
"""None = any size."""
_Expected = list[tuple[str, _Shape]]
_FLOAT = "tensor(float)"
_OUTPUT_TYPES = (_FLOAT, "tensor(float16)")
_CHANNELS = {
    "depth": 1,
    "normals": 3,
    "alpha": 1,
    "mask": 1,
    "flow": 2,
    "keypoints": 3,
    "albedo": 3,
    "shading": 3,
    "residual": 3,
    "material": 3,
}


@dataclass(frozen=True)
class GraphNode:
    """Input or output of a graph, read from its file."""

    name: str
    shape: tuple[int | str | None, ...]
    type: str


def read_nodes(path: Path) -> tuple[list[GraphNode], list[GraphNode]]:
    """Inputs and outputs of an ONNX file, without opening it in a runtime and without its weights.

    Raises:
        CardError: it is not an ONNX file.
    """
    # Imported here: a robot's CPU does without, and it takes half a second.
    import onnx
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load(path, load_external_data=False).graph
    except (DecodeError, OSError) as error:
        raise CardError(f"{path} cannot be read as an ONNX graph: {error}") from error
    weights = {weight.name for weight in graph.initializer}
    inputs = [_node(value) for value in graph.input if value.name not in weights]
    return inputs, [_node(value) for value in graph.output]


def check_graph(
    path: Path, card: ModelCard, inputs: Sequence[Node], outputs: Sequence[Node], role: GraphRole = "fused"
) -> None:
    """Compares the graph in `path` with its card.

    Raises:
        CardError: they contradict each other; the message names both sides.
    """
    required, optional = _expected_inputs(card, role)
    given = {node.name for node in inputs}
    expected = [*required, *(entry for entry in optional if entry[0] in given)]
    _check_nodes(path, "input", inputs, expected, (_FLOAT,))
    unknown = given - {name for name, _ in expected}
    if unknown:
        raise CardError(f"{path} needs the input '{min(unknown)}', which its card does not mention")
    _check_nodes(path, "output", outputs, _expected_outputs(card, role), _OUTPUT_TYPES)
    image = next((node for node in inputs if node.name == card.input.tensor), None)
    if image and card.input.size.rule != "fixed" and any(isinstance(side, int) for side in image.shape[2:]):
        raise CardError(
            f"{path} takes images of the fixed shape {list(image.shape)}, but the card's input.size.rule is "
            f"'{card.input.size.rule}'"
        )


def _expected_inputs(card: ModelCard, role: GraphRole) -> tuple[_Expected, _Expected]:
    """Inputs that the graph must have, and those that it may have."""
    image = (1, 3, card.input.size.height, card.input.size.width)
    prompts: _Expected = []
    if card.second_image:
        prompts.append((card.second_image.tensor, image))
    if card.points:
        prompts.append((card.points.tensor, (1, card.points.most, 3)))
    if card.prompt_mask:
        prompts.append((card.prompt_mask.tensor, (1, 1, *image[2:])))
    channels = card.sampler.latent_channels if card.sampler else None
    if role == "fused":
        noise: _Expected = [(card.noise.tensor, (1, card.noise.channels, None, None))] if card.noise else []
        return [(card.input.tensor, image), *noise, *prompts], []
    if role == "encode":
        return [(card.input.tensor, image)], prompts
    if role == "denoise":
        latents: _Expected = [("image_latent", (1, None, None, None)), (NOISY_LATENT, (1, channels, None, None))]
        return [*latents, ("timestep", (1,))], [("conditional", (1,)), *prompts]
    return [("latent", (1, channels, None, None))], prompts


def _expected_outputs(card: ModelCard, role: GraphRole) -> _Expected:
    if role == "encode":
        return [("image_latent", (1, None, None, None))]
    if role == "denoise":
        assert card.sampler is not None
        return [("prediction", (1, card.sampler.latent_channels, None, None))]
    expected: _Expected = []
    for output in card.outputs:
        expected.append((output.tensor, (1, _channels(output), None, None)))
        if isinstance(output, DepthOutput) and output.confidence_tensor:
            expected.append((output.confidence_tensor, (1, 1, None, None)))
    if card.noise and card.noise.latent_tensor:
        expected.append((card.noise.latent_tensor, (1, card.noise.channels, None, None)))
    return expected


def _channels(output: Output) -> int:
    if isinstance(output, SemanticOutput):
        return len(output.labels) if output.encoding == "logits" else 3
    if isinstance(output, InstancesOutput):
        return 2 if output.encoding == "offsets" else 3
    return _CHANNELS[output.task]


def _check_nodes(path: Path, kind: str, nodes: Sequence[Node], expected: _Expected, types: Sequence[str]) -> None:
    by_name = {node.name: node for node in nodes}
    for name, shape in expected:
        node = by_name.get(name)
        if node is None:
            raise CardError(f"the card names the {kind} '{name}', {path} has {', '.join(sorted(by_name)) or 'none'}")
        if node.type not in types:
            raise CardError(f"the {kind} '{name}' of {path} is a {node.type}, expected {' or '.join(types)}")
        agrees = len(node.shape) == len(shape) and all(
            wanted is None or not isinstance(actual, int) or actual == wanted
            for actual, wanted in zip(node.shape, shape, strict=True)
        )
        if not agrees:
            said = " x ".join("any" if side is None else str(side) for side in shape)
            raise CardError(f"the {kind} '{name}' of {path} has the shape {list(node.shape)}, its card implies {said}")


def _node(value: onnx.ValueInfoProto) -> GraphNode:
    from onnx import TensorProto

    tensor = value.type.tensor_type
    shape = tuple(
        side.dim_value if side.HasField("dim_value") else side.dim_param or None for side in tensor.shape.dim
    )
    kind = "float" if tensor.elem_type == TensorProto.FLOAT else TensorProto.DataType.Name(tensor.elem_type)
    return GraphNode(value.name, shape, f"tensor({kind.lower()})")
