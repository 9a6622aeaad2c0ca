"""Files that others wrote, read as data: within limits on their kind, size, depth and number of nodes.

Model cards, camera calibrations and configs may come from anywhere. Nothing here waits, recurses or takes memory for
longer than its limits allow, and everything that is refused is one `InputError` that names the file and the reason.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from diffusion_perception_ros.errors import InputError


@dataclass(frozen=True)
class Limits:
    """What one YAML or JSON document may hold."""

    size: int = 1 << 20
    """Bytes of the file."""
    depth: int = 32
    """Collections within collections."""
    nodes: int = 100_000
    """Scalars and collections together."""
    digits: int = 300
    """Characters of a scalar that is not quoted, as all numbers are."""


DEFAULT = Limits()
LARGEST_FILE = 64 << 30
"""Bytes of a file of weights; what is larger is not one, and hashing it would take minutes."""

_Base: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]
    """PyYAML's safe loader; dates stay text, and a key given twice is an error."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own way to say it
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(("timestamp", "merge"))]
        for first, resolvers in _Base.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key is a list or a mapping", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key '{key}' is twice", key_node.start_mark)
            seen.add(key)
        fields: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return fields


def read_yaml(path: Path, what: str = "", limits: Limits = DEFAULT) -> Any:
    """The first document of a YAML file: dicts, lists, strings, numbers, booleans and None.

    Args:
        path: The file.
        what: How the message names it, "" = its path.
        limits: What it may hold.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it is not a regular file, too large, not YAML, or holds what data has no use for: aliases, tags,
            a key twice.
    """
    return parse_yaml(read_bytes(path, limits.size, what), what or str(path), limits)


def parse_yaml(text: str | bytes, what: str, limits: Limits = DEFAULT) -> Any:
    """The first document of a YAML text; see `read_yaml`.

    Raises:
        InputError: as there.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        if len(text) > limits.size:
            raise InputError(f"{what} has more than the {limits.size} bytes that such a file may have")
        _check_events(text, what, limits)
        return next(iter(yaml.load_all(text, Loader=_Loader)), None)
    except InputError:
        raise
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{what} is not YAML: {' '.join(str(error).split())[:500]}") from error
    except (ValueError, OverflowError, RecursionError, AttributeError) as error:  # scalars that PyYAML trips over
        raise InputError(f"{what} holds a value that cannot be read: {str(error)[:200]}") from error


def parse_json(text: str | bytes, what: str, limits: Limits = DEFAULT) -> Any:
    """A JSON text.

    Raises:
        InputError: it is too large or too deep, or not JSON.
    """
    if len(text) > limits.size:
        raise InputError(f"{what} has more than the {limits.size} bytes that such a file may have")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{what} is not JSON: {str(error)[:200]}") from error


def read_bytes(path: Path, most: int, what: str = "") -> bytes:
    """All of a regular file of at most `most` bytes.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: another kind of file, a larger one, or one that cannot be read.
    """
    what = what or str(path)
    content = bytearray()
    with open_regular(path, what, most) as stream:
        try:
            while len(content) <= most and (block := stream.read(1 << 20)):
                content += block
        except OSError as error:
            raise InputError(f"{what} cannot be read: {error.strerror or error}") from error
    if len(content) > most:  # the file grew meanwhile
        raise InputError(f"{what} has more than the {most} bytes that such a file may have")
    return bytes(content)


def open_regular(path: Path, what: str = "", most: int = LARGEST_FILE) -> BinaryIO:
    """Opens a regular file; pipes, devices, sockets and folders are refused without waiting for them.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: another kind of file, a larger one, or one that cannot be opened.
    """
    what = what or str(path)
    try:
        status = os.stat(path)  # first, because opening a device may already do something
        if stat.S_ISREG(status.st_mode):
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            stream = os.fdopen(descriptor, "rb")
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode) and status.st_size <= most:
                return stream
            stream.close()
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise InputError(f"{what} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if stat.S_ISREG(status.st_mode):
        raise InputError(f"{what} has {status.st_size} bytes, more than the {most} that such a file may have")
    raise InputError(f"{what} is {_kind(status.st_mode)}, not a regular file")


def _check_events(text: str, what: str, limits: Limits) -> None:
    """Goes once through the parser's events, which costs neither recursion nor memory.

    Raises:
        InputError: the first document exceeds the limits, or has aliases or tags.
        YAMLError: it is not YAML.
    """
    depth = nodes = 0
    for event in yaml.parse(text, Loader=_Base):
        if isinstance(event, yaml.DocumentEndEvent):
            return
        if isinstance(event, yaml.AliasEvent):
            raise InputError(f"{what} has the alias '*{event.anchor}': write the value out, aliases are not read")
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if not isinstance(event, (yaml.CollectionStartEvent, yaml.ScalarEvent)):
            continue
        nodes += 1
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif not event.style and len(event.value) > limits.digits and _is_number(event.value):
            raise InputError(f"{what} has a number of {len(event.value)} digits, {limits.digits} are allowed")
        if event.tag is not None:
            raise InputError(f"{what} has the tag '{event.tag}': plain values only, tags are not read")
        if depth > limits.depth:
            raise InputError(f"{what} is nested deeper than {limits.depth} levels")
        if nodes > limits.nodes:
            raise InputError(f"{what} has more than {limits.nodes} values")


def _is_number(value: str) -> bool:
    return value[:1] in "+-.0123456789"


def _kind(mode: int) -> str:
    kinds = {
        stat.S_ISDIR: "a folder",
        stat.S_ISFIFO: "a pipe",
        stat.S_ISCHR: "a device",
        stat.S_ISBLK: "a device",
        stat.S_ISSOCK: "a socket",
    }
    return next((name for test, name in kinds.items() if test(mode)), "no file")
