"""Bags with a colour topic and a depth topic that is registered to it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffusion_perception_ros.datasets import EvaluationDataset, EvaluationSample, Skipped
from diffusion_perception_ros.datasets.bag_reading import BagMessage, read_messages
from diffusion_perception_ros.datasets.depth_checks import check_depth
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.image_encodings import decode_compressed, decode_depth, decode_image
from diffusion_perception_ros.sample import FloatImage, Intrinsics, UInt8Image


IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
DEPTH_ENCODINGS = frozenset({"16UC1", "32FC1"})
MAX_STAMP_DIFFERENCE = 20_000_000
"""Nanoseconds between colour and depth of one frame: below half a period at 25 Hz."""


@dataclass
class _Topic:
    """What the bag holds on one image topic."""

    name: str
    is_depth: bool
    frame_ids: set[str] = field(default_factory=set)
    stamps: list[int] = field(default_factory=list)
    """Nanoseconds, of every message in the order of the recording."""


class _Pair(NamedTuple):
    """Ordinals of a colour image and its depth image on their topics."""

    image: int
    depth: int | None


class BagDataset(EvaluationDataset):
    """Colour images of a bag paired with depth images by stamp.

    Reading in order costs one pass over the bag; another order starts again from the beginning.

    Args:
        path: rosbag2 folder or storage file, or ROS 1 bag.
        image_topic: Image or CompressedImage in colour; by default the one with most frames that have depth.
        depth_topic: Image of 16UC1 (mm) or 32FC1 (m) with the colour topic's frame_id; found by default.
        depth_required: Only frames that have depth. Otherwise every colour image is a sample.

    Raises:
        InputError: no such bag or topic, no colour images, or none that has the depth that is required.
    """

    def __init__(
        self,
        path: Path | str,
        image_topic: str | None = None,
        depth_topic: str | None = None,
        depth_required: bool = True,
    ) -> None:
        super().__init__(str(path))
        self.path = Path(path)
        damage: list[str] = []
        topics, self._cameras = _index(self.path, damage)
        self.damage = [Skipped(self.name, sentence) for sentence in dict.fromkeys(damage)]
        for wanted in (image_topic, depth_topic):
            if wanted is not None and wanted not in topics:
                raise InputError(f"{path} has no image topic {wanted}: it has {', '.join(sorted(topics)) or 'none'}")
        image, depth, self._pairs = _choose(topics, image_topic, depth_topic)
        if image is None or (depth_required and depth is None):
            raise InputError(_nothing_to_read(self.path, topics, damage))
        if not depth_required:
            partner = dict(self._pairs)
            self._pairs = [_Pair(ordinal, partner.get(ordinal)) for ordinal in range(len(image.stamps))]
        self.image_topic = image.name
        self.depth_topic = depth.name if depth else None
        self.stamps = [image.stamps[pair.image] for pair in self._pairs]
        """Of every sample's colour image, in nanoseconds."""
        self._cursor: Iterator[tuple[str, int, BagMessage]] = iter(())
        self._ahead: dict[tuple[str, int], BagMessage] = {}
        self._position = -1

    @property
    def camera_info_topic(self) -> str | None:
        """The sibling of the colour topic, None if the bag lacks it."""
        sibling = self.image_topic.removesuffix("/compressed").rpartition("/")[0] + "/camera_info"
        return sibling if sibling in self._cameras else None

    def __len__(self) -> int:
        return len(self._pairs)

    def name_of(self, index: int) -> str:
        return f"{self.path.name}/{self._pairs[index].image:04d}"

    def group_of(self, index: int) -> str:
        return self.path.name

    def usable(self) -> Iterator[tuple[int, EvaluationSample]]:
        yield from super().usable()
        self.skipped = self.damage + self.skipped

    def __getitem__(self, index: int) -> EvaluationSample:
        image, depth = self._messages(index)
        rgb = _decode_color(image, f"{self.image_topic} {self.name_of(index)}")
        return EvaluationSample(
            rgb=rgb,
            depth=_decode_depth(depth, rgb, f"{self.depth_topic} {self.name_of(index)}") if depth else None,
            intrinsics=self._intrinsics(image, rgb),
            stamp=1e-9 * self.stamps[index],
            frame_id=image.content.header.frame_id,
            name=self.name_of(index),
            group=self.group_of(index),
        )

    def _messages(self, index: int) -> tuple[BagMessage, BagMessage | None]:
        """The messages of a frame. Those that are passed on the way and belong to later frames are kept."""
        if index <= self._position or self._position < 0:
            self._cursor, self._ahead = self._walk(), {}
        self._position = index
        pair = self._pairs[index]
        wanted = {self.image_topic: pair.image}
        if pair.depth is not None:
            wanted[str(self.depth_topic)] = pair.depth
        while not all(key in self._ahead for key in wanted.items()):
            following = next(self._cursor, None)
            if following is None:
                raise InputError(f"{self.path} ends before frame {self.name_of(index)}: it changed while it was read")
            topic, ordinal, message = following
            self._ahead[topic, ordinal] = message
        found = {topic: self._ahead[topic, ordinal] for topic, ordinal in wanted.items()}
        self._ahead = {key: message for key, message in self._ahead.items() if key[1] > wanted.get(key[0], -1)}
        return found[self.image_topic], found.get(str(self.depth_topic))

    def _walk(self) -> Iterator[tuple[str, int, BagMessage]]:
        """Messages of the two topics with their ordinals."""
        counts: dict[str, int] = defaultdict(int)
        topics = {self.image_topic, self.depth_topic} - {None}
        for message in read_messages(self.path, {str(topic) for topic in topics}, {IMAGE, COMPRESSED}, []):
            yield message.topic, counts[message.topic], message
            counts[message.topic] += 1

    def _intrinsics(self, image: BagMessage, rgb: UInt8Image) -> Intrinsics | None:
        """Of the sibling camera_info topic, else of any camera with the image's frame_id; None if uncalibrated."""
        frame_id = image.content.header.frame_id
        by_frame = [camera for camera in self._cameras.values() if camera.header.frame_id == frame_id]
        info = self._cameras.get(self.camera_info_topic or "") or (by_frame[0] if by_frame else None)
        if info is None:
            return None
        k = info.k if hasattr(info, "k") else info.K  # ROS 1
        values = [float(k[i]) for i in (0, 4, 2, 5)]
        if not all(math.isfinite(value) for value in values) or min(values[:2]) <= 0 or not info.width * info.height:
            return None
        return Intrinsics(int(info.width), int(info.height), *values).resized(rgb.shape[1], rgb.shape[0])


def stamp_of(header: Any) -> int:
    """Nanoseconds of a deserialised header."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


def _index(path: Path, damage: list[str]) -> tuple[dict[str, _Topic], dict[str, Any]]:
    """Image topics and the first CameraInfo of each of its topics."""
    topics: dict[str, _Topic] = {}
    cameras: dict[str, Any] = {}
    for name, _, kind, content in read_messages(path, None, {IMAGE, COMPRESSED, CAMERA_INFO}, damage):
        if kind == CAMERA_INFO:
            cameras.setdefault(name, content)
            continue
        if name not in topics:
            if kind == COMPRESSED and "compressedDepth" in content.format:
                continue
            topics[name] = _Topic(name, kind == IMAGE and content.encoding in DEPTH_ENCODINGS)
        topics[name].frame_ids.add(content.header.frame_id)
        topics[name].stamps.append(stamp_of(content.header))
    return topics, cameras


def _choose(
    topics: dict[str, _Topic], image_topic: str | None, depth_topic: str | None
) -> tuple[_Topic | None, _Topic | None, list[_Pair]]:
    """The colour and the depth topic with most pairs; without any pair the colour topic with most images."""
    images = [topic for topic in topics.values() if not topic.is_depth and image_topic in (None, topic.name)]
    depths = [topic for topic in topics.values() if topic.is_depth and depth_topic in (None, topic.name)]
    candidates = [
        (image, depth, _pair(image.stamps, depth.stamps))
        for image in images
        for depth in depths
        if image.frame_ids & depth.frame_ids
    ]
    best = max(candidates, key=lambda candidate: len(candidate[2]), default=None)
    if best is not None and best[2]:
        return best
    return max(images, key=lambda topic: len(topic.stamps), default=None), None, []


def _nothing_to_read(path: Path, topics: dict[str, _Topic], damage: Sequence[str]) -> str:
    found = ", ".join(f"{topic.name} ({'/'.join(sorted(topic.frame_ids))})" for topic in topics.values())
    wish = f"its image topics are {found}; record depth registered to the colour camera" if found else "no images"
    return (
        f"{path} has no colour images with depth in the same frame_id and within "
        f"{MAX_STAMP_DIFFERENCE / 1e9:g} s: {wish}" + (f" ({damage[0]})" if damage else "")
    )


def _pair(images: list[int], depths: list[int]) -> list[_Pair]:
    """The frames whose stamps are close enough."""
    order = np.argsort(depths, kind="stable")
    stamps = [depths[place] for place in order]
    pairs = []
    for ordinal, stamp in enumerate(images):
        after = int(np.searchsorted(stamps, stamp))
        near = [place for place in (after - 1, after) if 0 <= place < len(stamps)]
        best = min(near, key=lambda place: abs(stamps[place] - stamp))
        if abs(stamps[best] - stamp) <= MAX_STAMP_DIFFERENCE:
            pairs.append(_Pair(ordinal, int(order[best])))
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


def _decode_depth(message: BagMessage, rgb: UInt8Image, name: str) -> FloatImage:
    content = message.content
    try:
        metres = decode_depth(
            content.data, content.encoding, content.width, content.height, content.step, content.is_bigendian
        )
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    return check_depth(metres, rgb.shape, name)
