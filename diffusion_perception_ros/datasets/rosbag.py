"""Bags with a colour topic and a depth topic that is registered to it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_perception_ros.datasets import EvaluationDataset, EvaluationSample, Skipped
from diffusion_perception_ros.datasets.bag_reading import BagMessage, read_messages
from diffusion_perception_ros.datasets.depth_checks import check_depth
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.image_encodings import decode_compressed, decode_depth, decode_image
from diffusion_perception_ros.sample import Intrinsics, UInt8Image


IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
DEPTH_ENCODINGS = frozenset({"16UC1", "32FC1"})
MAX_STAMP_DIFFERENCE = 0.02
"""Seconds between colour and depth of one frame: below half a period at 25 Hz."""


@dataclass
class _Topic:
    """What the bag holds on one image topic."""

    name: str
    is_depth: bool
    frame_ids: set[str] = field(default_factory=set)
    stamps: list[float] = field(default_factory=list)
    """Seconds, of every message in the order of the recording."""


class BagDataset(EvaluationDataset):
    """Colour images of a bag paired with depth images by stamp.

    Reading in order costs one pass over the bag; another order starts again from the beginning.

    Args:
        path: rosbag2 folder or storage file, or ROS 1 bag.
        image_topic: Image or CompressedImage in colour; by default the one with most frames that have depth.
        depth_topic: Image of 16UC1 (mm) or 32FC1 (m) with the colour topic's frame_id; found by default.

    Raises:
        InputError: no such bag or topic, or no frame of it has registered depth.
    """

    def __init__(self, path: Path | str, image_topic: str | None = None, depth_topic: str | None = None) -> None:
        super().__init__(str(path))
        self.path = Path(path)
        damage: list[str] = []
        topics, self._cameras = _index(self.path, damage)
        self.damage = [Skipped(self.name, sentence) for sentence in dict.fromkeys(damage)]
        image, depth, self._pairs = _choose(self.path, topics, image_topic, depth_topic, damage)
        self.image_topic, self.depth_topic = image.name, depth.name
        self._cursor: Iterator[tuple[str, int, BagMessage]] = iter(())
        self._ahead: dict[tuple[str, int], BagMessage] = {}
        self._position = -1

    def __len__(self) -> int:
        return len(self._pairs)

    def name_of(self, index: int) -> str:
        return f"{self.path.name}/{self._pairs[index][0]:04d}"

    def group_of(self, index: int) -> str:
        return self.path.name

    def usable(self) -> Iterator[tuple[int, EvaluationSample]]:
        yield from super().usable()
        self.skipped = self.damage + self.skipped

    def __getitem__(self, index: int) -> EvaluationSample:
        image, depth = self._messages(index)
        name = f"{self.image_topic} {self.name_of(index)}"
        rgb = _decode_color(image, name)
        sample = EvaluationSample(
            rgb=rgb,
            intrinsics=self._intrinsics(image, rgb),
            stamp=_stamp(image.content),
            frame_id=image.content.header.frame_id,
            name=self.name_of(index),
            group=self.group_of(index),
        )
        name = f"{self.depth_topic} {self.name_of(index)}"
        content = depth.content
        try:
            metres = decode_depth(
                content.data, content.encoding, content.width, content.height, content.step, content.is_bigendian
            )
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
        sample.depth = check_depth(metres, rgb.shape, name)
        return sample

    def _messages(self, index: int) -> tuple[BagMessage, BagMessage]:
        """The two messages of a frame. Those that are passed on the way and belong to later frames are kept."""
        if index <= self._position:
            self._cursor, self._ahead, self._position = iter(()), {}, -1
        if self._position < 0:
            self._cursor = self._walk()
        self._position = index
        image, depth = self._pairs[index]
        wanted = [(self.image_topic, image), (self.depth_topic, depth)]
        while not all(key in self._ahead for key in wanted):
            following = next(self._cursor, None)
            if following is None:
                raise InputError(f"{self.path} ends before frame {self.name_of(index)}: it changed while it was read")
            topic, ordinal, message = following
            self._ahead[topic, ordinal] = message
        found = self._ahead[wanted[0]], self._ahead[wanted[1]]
        passed = dict(wanted)
        self._ahead = {key: message for key, message in self._ahead.items() if key[1] > passed[key[0]]}
        return found

    def _walk(self) -> Iterator[tuple[str, int, BagMessage]]:
        counts: dict[str, int] = defaultdict(int)
        for message in read_messages(self.path, {self.image_topic, self.depth_topic}, {IMAGE, COMPRESSED}, []):
            yield message.topic, counts[message.topic], message
            counts[message.topic] += 1

    def _intrinsics(self, image: BagMessage, rgb: UInt8Image) -> Intrinsics | None:
        """Of the sibling camera_info topic, else of any camera with the image's frame_id; None if uncalibrated."""
        base = self.image_topic.removesuffix("/compressed").rpartition("/")[0]
        by_frame = [
            camera for camera in self._cameras.values() if camera.header.frame_id == image.content.header.frame_id
        ]
        info = self._cameras.get(f"{base}/camera_info") or (by_frame[0] if by_frame else None)
        if info is None:
            return None
        k = getattr(info, "k", None)
        k = info.K if k is None else k  # ROS 1
        values = [float(k[i]) for i in (0, 4, 2, 5)]
        if not all(math.isfinite(value) for value in values) or min(values[:2]) <= 0 or not info.width * info.height:
            return None
        return Intrinsics(int(info.width), int(info.height), *values).resized(rgb.shape[1], rgb.shape[0])


def _stamp(content: Any) -> float:
    stamp = content.header.stamp
    return float(stamp.sec + 1e-9 * stamp.nanosec)


def _index(path: Path, damage: list[str]) -> tuple[dict[str, _Topic], dict[str, Any]]:
    """Image topics and the first CameraInfo of each of its topics."""
    topics: dict[str, _Topic] = {}
    cameras: dict[str, Any] = {}
    for name, kind, content in read_messages(path, None, {IMAGE, COMPRESSED, CAMERA_INFO}, damage):
        if kind == CAMERA_INFO:
            cameras.setdefault(name, content)
            continue
        if name not in topics:
            if kind == COMPRESSED and "compressedDepth" in content.format:
                continue
            topics[name] = _Topic(name, kind == IMAGE and content.encoding in DEPTH_ENCODINGS)
        topics[name].frame_ids.add(content.header.frame_id)
        topics[name].stamps.append(_stamp(content))
    return topics, cameras


def _choose(
    path: Path, topics: dict[str, _Topic], image_topic: str | None, depth_topic: str | None, damage: list[str]
) -> tuple[_Topic, _Topic, list[tuple[int, int]]]:
    """The colour and the depth topic with most pairs, and those pairs."""
    for wanted in (image_topic, depth_topic):
        if wanted is not None and wanted not in topics:
            names = ", ".join(sorted(topics)) or "none"
            raise InputError(f"{path} has no image topic {wanted}: it has {names}")
    images = [topic for topic in topics.values() if not topic.is_depth and image_topic in (None, topic.name)]
    depths = [topic for topic in topics.values() if topic.is_depth and depth_topic in (None, topic.name)]
    candidates = [
        (image, depth, _pair(image.stamps, depth.stamps))
        for image in images
        for depth in depths
        if image.frame_ids & depth.frame_ids
    ]
    if not candidates or not any(pairs for _, _, pairs in candidates):
        found = ", ".join(f"{topic.name} ({'/'.join(sorted(topic.frame_ids))})" for topic in topics.values())
        raise InputError(
            f"{path} has no colour images with depth in the same frame_id and within {MAX_STAMP_DIFFERENCE} s: "
            + (f"its image topics are {found}; record depth registered to the colour camera" if found else "no images")
            + (f" ({damage[0]})" if damage else "")
        )
    return max(candidates, key=lambda candidate: len(candidate[2]))


def _pair(images: list[float], depths: list[float]) -> list[tuple[int, int]]:
    """(image, depth) ordinals of the frames whose stamps are close enough."""
    order = np.argsort(depths, kind="stable")
    stamps = np.asarray(depths)[order]
    pairs = []
    for ordinal, stamp in enumerate(images):
        after = int(np.searchsorted(stamps, stamp))
        near = [place for place in (after - 1, after) if 0 <= place < len(stamps)]
        best = min(near, key=lambda place: abs(stamps[place] - stamp))
        if abs(stamps[best] - stamp) <= MAX_STAMP_DIFFERENCE:
            pairs.append((ordinal, int(order[best])))
    return pairs


def _decode_color(message: BagMessage, name: str) -> UInt8Image:
    content = message.content
    try:
        if message.type == COMPRESSED:
            return decode_compressed(content.data, content.format)
        return decode_image(
            content.data, content.encoding, content.width, content.height, content.step, content.is_bigendian
        )
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
