"""Cuts an ONNX graph down to some of its outputs. ONNX Runtime runs every node, whatever outputs are asked for.

Works on the file's bytes: a robot need not have the `onnx` package, and only names of tensors have to be understood.
Field numbers are those of onnx.proto, which protocol buffers never reassign.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple


_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_OUTPUT = 1, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_ATTRIBUTE = 1, 2, 5
_ATTRIBUTE_GRAPHS = (6, 11)
_VALUE_NAME = 1

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class _Field(NamedTuple):
    number: int
    encoded: memoryview
    """The whole field, with its tag."""
    content: memoryview
    """Of strings and messages; empty for numbers."""


def keep_outputs(model: bytes, names: Collection[str]) -> bytes:
    """The model with only the graph outputs `names` and the nodes that they need.

    Raises:
        ValueError: not an ONNX model.
    """
    parts: list[bytes | memoryview] = []
    for field in _fields(memoryview(model)):
        if field.number == _MODEL_GRAPH:
            graph = b"".join(_pruned_graph(list(_fields(field.content)), names))
            parts += [_varint(_MODEL_GRAPH << 3 | _BYTES), _varint(len(graph)), graph]
        else:
            parts.append(field.encoded)
    return b"".join(parts)


def _pruned_graph(graph: list[_Field], names: Collection[str]) -> Iterator[memoryview]:
    needed = set(names)
    dropped = set()
    # Nodes are in topological order: whoever uses a tensor comes after the node that makes it.
    for index in range(len(graph) - 1, -1, -1):
        field = graph[index]
        if field.number == _GRAPH_NODE:
            if needed.isdisjoint(_strings(field.content, _NODE_OUTPUT)):
                dropped.add(index)
            else:
                needed.update(_used_names(field.content))
        elif field.number == _GRAPH_OUTPUT and needed.isdisjoint(_strings(field.content, _VALUE_NAME)):
            dropped.add(index)
    return (field.encoded for index, field in enumerate(graph) if index not in dropped)


def _used_names(node: memoryview) -> Iterator[str]:
    """Tensors that a node reads, also inside the graphs of its branches and loops."""
    yield from _strings(node, _NODE_INPUT)
    for attribute in _fields(node):
        if attribute.number == _NODE_ATTRIBUTE:
            for graph in _fields(attribute.content):
                if graph.number in _ATTRIBUTE_GRAPHS:
                    for inner in _fields(graph.content):
                        if inner.number == _GRAPH_NODE:
                            yield from _used_names(inner.content)
                        elif inner.number == _GRAPH_OUTPUT:
                            yield from _strings(inner.content, _VALUE_NAME)


def _strings(message: memoryview, number: int) -> list[str]:
    return [str(field.content, "utf-8") for field in _fields(message) if field.number == number]


def _fields(message: memoryview) -> Iterator[_Field]:
    """Fields of an encoded message, in order."""
    position = 0
    while position < len(message):
        start = position
        tag, position = _read_varint(message, position)
        content = position
        kind = tag & 7
        if kind == _VARINT:
            _, position = _read_varint(message, position)
            content = position
        elif kind == _BYTES:
            length, content = _read_varint(message, position)
            position = content + length
        elif kind in (_FIXED32, _FIXED64):
            position += 4 if kind == _FIXED32 else 8
            content = position
        else:
            raise ValueError(f"not an ONNX model: unknown wire type {kind}")
        if position > len(message):
            raise ValueError("not an ONNX model: it is cut off")
        yield _Field(tag >> 3, message[start:position], message[content:position])


def _read_varint(message: memoryview, position: int) -> tuple[int, int]:
    """Value and the position after it."""
    value = shift = 0
    while position < len(message):
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("not an ONNX model: it is cut off")


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
