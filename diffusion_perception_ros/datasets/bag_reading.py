"""Messages of any bag, deserialised: rosbag2 (sqlite3, mcap, compressed) and ROS 1, whole or damaged."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from diffusion_perception_ros.bag_salvage import salvage
from diffusion_perception_ros.errors import InputError


STORAGES = (".mcap", ".db3")


class BagMessage(NamedTuple):
    """One recorded message."""

    topic: str
    time: int
    """Nanoseconds, when it was recorded."""
    type: str
    """Such as `sensor_msgs/msg/Image`; ROS 1 types are named the same way."""
    content: Any
    """Fields by attribute; arrays are NumPy arrays."""


def is_bag(path: Path) -> bool:
    """Whether a path is a rosbag2 folder or storage file, or a ROS 1 bag."""
    if path.is_dir():
        return (path / "metadata.yaml").is_file() or bool(_storage_files(path))
    return path.suffix in (*STORAGES, ".bag")


def read_messages(
    path: Path, topics: Collection[str] | None, types: Collection[str], damage: list[str]
) -> Iterator[BagMessage]:
    """Messages in the order of the recording.

    Args:
        path: What `is_bag` accepts.
        topics: Only these; None = all.
        types: Only messages of these types.
        damage: Gets a sentence for everything that could not be read; reading goes on with the rest.

    Raises:
        InputError: there is no such bag.
    """
    if not path.exists():
        raise InputError(f"there is no bag {path}")
    parts = [path]
    if path.is_dir() and not _opens(path):
        parts = _storage_files(path)
    for part in parts:
        whole = _opens(part)
        if not whole and part.suffix not in STORAGES:
            damage.append(f"{part} cannot be read as a bag")
            continue
        try:
            yield from _read_whole(part, topics, types) if whole else _read_salvaged(part, topics, types)
        except InputError as error:
            damage.append(str(error))
        except Exception as error:  # damaged bytes make the readers of storage and messages raise anything
            damage.append(f"{part} is damaged: it cannot be read further ({error})")


def _storage_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix in STORAGES)


def _opens(path: Path) -> bool:
    """Whether the index of a bag is there and whole."""
    try:
        with AnyReader([path], default_typestore=get_typestore(Stores.LATEST)):
            return True
    except Exception:  # damaged bytes make the readers raise anything
        return False


def _read_whole(path: Path, topics: Collection[str] | None, types: Collection[str]) -> Iterator[BagMessage]:
    with AnyReader([path], default_typestore=get_typestore(Stores.LATEST)) as reader:
        chosen = [
            connection
            for connection in reader.connections
            if connection.msgtype in types and (topics is None or connection.topic in topics)
        ]
        if chosen:  # an empty list would mean all
            for connection, time, data in reader.messages(chosen):
                content = reader.deserialize(data, connection.msgtype)
                yield BagMessage(connection.topic, time, connection.msgtype, content)


def _read_salvaged(path: Path, topics: Collection[str] | None, types: Collection[str]) -> Iterator[BagMessage]:
    store = get_typestore(Stores.LATEST)
    for topic, kind, time, data in salvage(path):
        if kind in types and (topics is None or topic in topics):
            yield BagMessage(topic, time, kind, store.deserialize_cdr(data, kind))
