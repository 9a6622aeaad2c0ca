"""Cuts an ONNX graph down to some of its outputs. ONNX Runtime runs every node, whatever outputs are asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError


def keep_outputs(model: bytes, names: Collection[str]) -> bytes:
    """The model with only the graph outputs `names` and the nodes that they need.

    Raises:
        ValueError: not an ONNX model.
    """
    try:
        proto = onnx.ModelProto.FromString(model)
    except DecodeError as error:
        raise ValueError(f"not an ONNX model: {error}") from error
    graph = proto.graph
    needed = set(names)
    nodes = []
    # Nodes are in topological order: whoever uses a tensor comes after the node that makes it.
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            nodes.append(node)
            needed.update(used_names(node))
    outputs = [output for output in graph.output if output.name in names]
    weights = [weight for weight in graph.initializer if weight.name in needed]
    for field, kept in ((graph.node, reversed(nodes)), (graph.output, outputs), (graph.initializer, weights)):
        copies = [type(item).FromString(item.SerializeToString()) for item in kept]
        del field[:]
        field.extend(copies)
    return bytes(proto.SerializeToString())


def has_external_weights(path: Path) -> bool:
    """Whether a graph keeps weights in files beside it."""
    weights = onnx.load(path, load_external_data=False).graph.initializer
    return any(weight.data_location == onnx.TensorProto.EXTERNAL for weight in weights)


def used_names(node: onnx.NodeProto) -> Iterator[str]:
    """Tensors that a node reads, also inside the graphs of its branches and loops."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from used_names(inner)
            yield from (output.name for output in graph.output)
