"""A graph must be what its card says: inputs and outputs by name, their rank and their channels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from diffusion_perception_ros.inference.card import CardError, DepthOutput, ModelCard


_Shape = tuple[int | None, ...]
"""None = any size."""
_FLOATS = ("tensor(float)", "tensor(float16)")


class Node(Protocol):
    """Input or output of a graph, as ONNX Runtime describes it."""

    name: str
    shape: list[int | str | None]
    """Names and None stand for dimensions of any size."""
    type: str


def check_graph(path: Path, card: ModelCard, inputs: Sequence[Node], outputs: Sequence[Node]) -> None:
    """Compares the graph in `path` with its card.

    Raises:
        CardError: they contradict each other; the message names both sides.
    """
    width, height = card.input.size.width, card.input.size.height
    expected: list[tuple[str, _Shape]] = [(card.input.tensor, (1, 3, height, width))]
    if card.noise:
        expected.append((card.noise.tensor, (1, card.noise.channels, None, None)))
    _check_nodes(path, "input", inputs, expected, ("tensor(float)",))
    missing = {node.name for node in inputs} - {name for name, _ in expected}
    if missing:
        raise CardError(f"{path} needs the input '{min(missing)}', which its card does not mention")
    _check_nodes(path, "output", outputs, _expected_outputs(card), _FLOATS)
    if card.input.size.rule != "fixed":
        image = next(node for node in inputs if node.name == card.input.tensor)
        if any(isinstance(side, int) for side in image.shape[2:]):
            raise CardError(
                f"{path} takes pictures of the fixed shape {image.shape}, but the card's input.size.rule is "
                f"'{card.input.size.rule}'"
            )


def _expected_outputs(card: ModelCard) -> list[tuple[str, _Shape]]:
    channels = {"depth": 1, "normals": 3, "semantic": len(card.labels), "instances": 2}
    expected: list[tuple[str, _Shape]] = []
    for output in card.outputs:
        expected.append((output.tensor, (1, channels[output.task], None, None)))
        if isinstance(output, DepthOutput) and output.confidence_tensor:
            expected.append((output.confidence_tensor, (1, 1, None, None)))
    return expected


def _check_nodes(
    path: Path, kind: str, nodes: Sequence[Node], expected: Sequence[tuple[str, _Shape]], types: Sequence[str]
) -> None:
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
            raise CardError(f"the {kind} '{name}' of {path} has the shape {node.shape}, its card implies {said}")
