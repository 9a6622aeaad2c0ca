"""What every kind of storage file offers to `Recording`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml


CDR, ROS1 = "cdr", "ros1"
READABLE_ENCODINGS = (CDR, ROS1)
LARGEST_CHUNK = 1 << 31
"""Bytes of one decompressed chunk or message; a wrong header must not cost more memory."""


@dataclass(frozen=True)
class Channel:
    """A topic as one file holds it."""

    topic: str
    type: str
    """ROS 2 name, such as `sensor_msgs/msg/Image`, also for ROS 1; empty if the file does not say."""
    encoding: str
    """Of the messages: `cdr`, `ros1` or something that is not read."""
    definition: str = ""
    """Text of the message definition, empty where the file has none."""
    is_idl: bool = False
    """The definition is IDL, not msg."""
    is_latched: bool = False
    """Offered transient local, or latching in ROS 1."""


class Entry(NamedTuple):
    """Where a message is."""

    time: int
    """Nanoseconds, when it was recorded."""
    channel: int
    """Key of `Storage.channels`."""
    place: Any
    """For `Storage.read`."""


class Storage(ABC):
    """One storage file, opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.channels: dict[int, Channel] = {}
        self.counts: dict[int, int] = {}
        """Messages per channel, as far as the file tells without reading all of it."""
        self.span: tuple[int, int] | None = None
        """Times of the first and the last message; None if there are none."""
        self.notes: list[str] = []
        """What a reader should know although nothing is lost."""
        self.damage: list[str] = []
        """One sentence for everything that is lost."""

    def lost(self, sentence: str) -> None:
        """Adds to `damage`, once."""
        if sentence not in self.damage:
            self.damage.append(sentence)

    @abstractmethod
    def entries(self, channels: Collection[int]) -> Iterator[Entry]:
        """Messages of some channels in the order of their times; what cannot be read is added to `damage`."""

    @abstractmethod
    def read(self, place: Any) -> bytes:
        """The bytes of a message.

        Raises:
            InputError: they cannot be read.
        """

    @abstractmethod
    def close(self) -> None:
        """Lets go of the file."""


def qos_is_latched(profiles: object) -> bool:
    """Whether QoS profiles, as rosbag2 stores them, include transient local."""
    try:
        listed: Any = yaml.safe_load(profiles) if isinstance(profiles, str) else profiles
        return any(profile["durability"] in (1, "transient_local") for profile in listed or ())
    except (yaml.YAMLError, KeyError, TypeError):
        return False
