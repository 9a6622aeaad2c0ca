"""Which topics of a recording are colour, which are depth, which images belong together, and what their camera is."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.camera_model import image_intrinsics
from diffusion_perception_ros.inference.image_messages import COLOR, OTHER, ImageKind, kind_of
from diffusion_perception_ros.inference.video import header_of, packet_of
from diffusion_perception_ros.recordings.message_types import (
    CAMERA_INFO,
    COMPRESSED,
    FFMPEG_PACKET,
    FOXGLOVE_IMAGE,
    FOXGLOVE_VIDEO,
    IMAGE,
)
from diffusion_perception_ros.recordings.recording import Recording, RecordingItem
from diffusion_perception_ros.sample import Intrinsics


IMAGE_TYPES = (IMAGE, COMPRESSED, FFMPEG_PACKET, FOXGLOVE_VIDEO, FOXGLOVE_IMAGE)
_CLOCKS_DIFFER = 1_000_000_000
"""Nanoseconds between stamp and record time, by which two topics may differ before their clocks are different ones."""


@dataclass
class ImageTopic:
    """The images of one topic that can be read."""

    name: str
    type: str
    kind: str
    """`color` or `depth`."""
    form: str
    """Encoding or format, for people."""
    items: list[RecordingItem] = field(default_factory=list)
    frame_ids: set[str] = field(default_factory=set)
    stamps: list[int] = field(default_factory=list)
    """Nanoseconds, of every item; of an image without a stamp the time at which it was recorded."""

    keys: list[bool] = field(default_factory=list)
    """Of video: which items are key frames. Empty for images."""

    @property
    def times(self) -> list[int]:
        """Nanoseconds, when they were recorded."""
        return [item.time for item in self.items]

    @property
    def delay(self) -> float:
        """Median of stamp minus time of recording, in nanoseconds."""
        return float(np.median(np.subtract(self.stamps, self.times))) if self.items else 0.0


class Cameras:
    """The CameraInfo of a recording's topics: of every topic the first calibrated one, else the first."""

    def __init__(self) -> None:
        self._infos: dict[str, Any] = {}

    def __contains__(self, topic: str) -> bool:
        return topic in self._infos

    def add(self, topic: str, info: Any) -> None:
        """Takes up a message."""
        known = self._infos.get(topic)
        if known is None or (known.k[0] == 0 and info.k[0] != 0):
            self._infos[topic] = info

    def intrinsics(
        self, topic: str, kind: str, frame_id: str, shape: tuple[int, ...], notes: list[str]
    ) -> Intrinsics | None:
        """Of an image, by the rule of the node: of its sibling topic, else of any camera with its frame_id.

        Args:
            topic, kind, frame_id: of the image message; `kind` is its type.
            shape: (H, W, 3) of the image.
            notes: gets the reason why the camera cannot be used, once.

        Returns:
            None without a camera, or with one that cannot be used.
        """
        names = (camera_info_topic(topic, kind), camera_info_topic(topic, IMAGE))
        siblings = [self._infos[name] for name in names if name in self._infos]
        alike = (info for info in self._infos.values() if info.header.frame_id == frame_id)
        info = next(iter(siblings), None) or next(alike, None)
        if info is None:
            return None
        try:
            return image_intrinsics(info, shape[1], shape[0])
        except InputError as error:
            if str(error) not in notes:
                notes.append(str(error))
            return None


@dataclass
class ImageTopics:
    """What a recording has to offer."""

    by_name: dict[str, ImageTopic] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)
    """Image topics that are neither colour nor depth, and why."""
    cameras: Cameras = field(default_factory=Cameras)
    notes: list[str] = field(default_factory=list)


def camera_info_topic(topic: str, kind: str) -> str:
    """The sibling of an image topic, as image_transport names it; a transport has its own name after the image's."""
    base = topic if kind == IMAGE else topic.rpartition("/")[0]
    return base.rpartition("/")[0] + "/camera_info"


def find_topics(recording: Recording) -> ImageTopics:
    """Reads through all images once; what cannot be read is counted in the recording's `damage`."""
    found = ImageTopics()
    kinds: dict[str, Counter[ImageKind]] = defaultdict(Counter)
    seen: dict[str, list[_Seen]] = defaultdict(list)
    for item in recording.items(types={*IMAGE_TYPES, CAMERA_INFO}):
        try:
            content = recording.message(item).content
        except InputError as error:
            recording.lose(item, str(error))
            continue
        if item.type == CAMERA_INFO:
            found.cameras.add(item.topic, content)
            continue
        kind = kind_of(content, item.topic)
        kinds[item.topic][kind] += 1
        header, packet = header_of(content), packet_of(content)
        is_key = None if packet is None else packet.is_key
        seen[item.topic].append(_Seen(kind.kind, item, stamp_of(header), header.frame_id, is_key))
    recording.settle()
    stampless: dict[str, list[str]] = defaultdict(list)
    for name, counts in kinds.items():
        main = counts.most_common(1)[0][0]
        if main.kind == OTHER:
            found.unusable[name] = main.reason
            found.notes.append(f"{name} is left out: {main.reason}")
            continue
        found.by_name[name] = _topic(name, main, seen[name], found.notes, stampless)
    for state, names in stampless.items():
        found.notes.append(f"{state} of {', '.join(names)}: the times at which they were recorded are used instead")
    found.notes += recording.left_out_notes
    return found


class _Seen(NamedTuple):
    """An image message, after a look at it."""

    kind: str
    item: RecordingItem
    stamp: int
    frame_id: str
    is_key: bool | None
    """None for what is no video."""


def _topic(
    name: str,
    main: ImageKind,
    seen: Sequence[_Seen],
    notes: list[str],
    stampless: dict[str, list[str]],
) -> ImageTopic:
    rows = [row for row in seen if row.kind == main.kind]
    items, frame_ids = [row.item for row in rows], {row.frame_id for row in rows}
    topic = ImageTopic(name, items[0].type, main.kind, main.form, items, frame_ids)
    if rows[0].is_key is not None:
        topic.keys = [bool(row.is_key) for row in rows]
    if others := len(seen) - len(rows):
        notes.append(f"{others} of the {len(seen)} images of {name} are left out: they hold no {main.kind}")
    topic.stamps, state = with_record_times([row.stamp for row in rows], topic.times)
    if state:
        stampless[state].append(name)
    return topic


def with_record_times(stamps: Sequence[int], times: Sequence[int]) -> tuple[list[int], str]:
    """Stamps, with the times of recording in the place of those that are missing, and what is wrong with them.

    Args:
        stamps: Nanoseconds of the headers; 0 or less is missing, and so are all if they never change.
        times: Nanoseconds at which the messages were recorded.
    """
    values = np.array(stamps, np.int64)
    missing = values <= 0
    if len(values) > 1 and (values == values[0]).all() and len(set(times)) > 1:
        missing[:] = True
    if not missing.any():
        return [int(value) for value in values], ""
    known = ~missing
    shift = round(float(np.median(values[known] - np.array(times)[known]))) if known.any() else 0
    which = "0 are all header stamps" if (values == 0).all() else "always the same are the header stamps"
    if not missing.all():
        which = f"0 are {int(missing.sum())} of the {len(values)} header stamps"
    return [int(value) for value in np.where(missing, np.array(times, np.int64) + shift, values)], which


def stamp_of(header: Any) -> int:
    """Nanoseconds of a deserialised header."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


def comparable_stamps(first: ImageTopic, second: ImageTopic) -> tuple[list[int], list[int], str]:
    """Times of two topics by one clock, and a sentence if those of the headers could not be used.

    Two computers, or a driver that stamps with the time since its start, give two clocks: then only the times of
    recording say what belongs together.
    """
    if abs(first.delay - second.delay) < _CLOCKS_DIFFER:
        return first.stamps, second.stamps, ""
    seconds = abs(first.delay - second.delay) / 1e9
    return (
        first.times,
        second.times,
        f"the stamps of {first.name} and {second.name} come from clocks that differ by {seconds:.0f} s: they are "
        "paired by the times at which they were recorded",
    )


def colors(topics: ImageTopics, name: str | None) -> Iterator[ImageTopic]:
    """Colour topics, or the one of a name."""
    return (topic for topic in topics.by_name.values() if topic.kind == COLOR and name in (None, topic.name))
