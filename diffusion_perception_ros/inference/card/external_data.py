"""Which other files an ONNX graph opens, read from its bytes without loading it.

ONNX is Protocol Buffers: fields of a number, a wire type and a value. Only the fields that lead to tensors and
operators are entered (onnx.proto3, their numbers below), so that a graph of gigabytes costs neither memory nor time
and one of endless nesting no stack.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from diffusion_perception_ros.safe_files import open_regular


_Buffer = mmap.mmap | bytes
_Field = tuple[int, int, int]
"""Number, first byte and end of a field that has a length."""

_ENTERED: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {4: "OpType", 5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "Entry"},
}
_KEY, _VALUE = 1, 2
"""Fields of an entry of a tensor's `external_data`."""
_FORBIDDEN = frozenset({b"EPContext"})
"""Operators of ONNX Runtime that load compiled engines, from bytes or from a file."""
_MOST_FIELDS = 5_000_000
"""Real graphs pack their numbers and have some 100 000."""
_MOST_BYTES = 2 << 30
"""Of one ONNX file, which is the limit of Protocol Buffers."""


class GraphFileError(ValueError):
    """Bytes that are no ONNX graph, or one that does more than compute."""


def external_files(path: Path) -> frozenset[str]:
    """The locations that a graph file names for its tensors, as they are written there.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it is not a regular file, or too large.
        GraphFileError: it is not ONNX, or holds an operator that loads compiled code.
    """
    with open_regular(path, most=_MOST_BYTES) as stream:
        try:
            content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # an empty file cannot be mapped
            raise GraphFileError("the file is empty") from None
        with content:
            return external_locations(content)


def external_locations(content: _Buffer) -> frozenset[str]:
    """The same for the bytes of a graph file.

    Raises:
        GraphFileError: as there.
    """
    locations = set()
    waiting = [("Model", 0, len(content))]
    count = 0
    while waiting:
        kind, start, end = waiting.pop()
        if kind == "OpType":
            if content[start:end] in _FORBIDDEN:
                raise GraphFileError("it has the operator EPContext, a compiled engine: export the graph itself")
        elif kind == "Entry":
            key, value = _entry(content, start, end)
            if key == b"location":
                locations.add(value.decode("utf-8", "backslashreplace"))
        else:
            entered = _ENTERED[kind]
            for number, first, last in _fields(content, start, end):
                count += 1
                if number in entered:
                    waiting.append((entered[number], first, last))
            if count > _MOST_FIELDS:
                raise GraphFileError(f"it has more than {_MOST_FIELDS} fields")
    return frozenset(locations)


def _entry(content: _Buffer, start: int, end: int) -> tuple[bytes, bytes]:
    key = value = b""
    for number, first, last in _fields(content, start, end):
        if number == _KEY:
            key = bytes(content[first:last])
        elif number == _VALUE:
            value = bytes(content[first:last])
    return key, value


def _fields(content: _Buffer, position: int, end: int) -> Iterator[_Field]:
    """The fields of one message; those of a fixed size come with the number 0, since none of them is entered."""
    while position < end:
        tag, position = _varint(content, position, end)
        number, wire_type = tag >> 3, tag & 7
        if number == 0:
            raise GraphFileError(f"byte {position} is no field of ONNX")
        if wire_type == 2:
            length, position = _varint(content, position, end)
            last = position + length
        elif wire_type == 0:
            number, last = 0, _varint(content, position, end)[1]
        elif wire_type in (1, 5):
            number, last = 0, position + (8 if wire_type == 1 else 4)
        else:
            raise GraphFileError(f"byte {position} is no field of ONNX")
        if last > end:
            raise GraphFileError(f"it is cut off: a field at byte {position} ends {last - end} bytes behind the end")
        yield number, position, last
        position = last


def _varint(content: _Buffer, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while position < end and shift < 70:
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise GraphFileError(f"a number at byte {position} is cut off")
