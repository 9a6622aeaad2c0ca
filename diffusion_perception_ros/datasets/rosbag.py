"""Bags with a colour topic and a depth topic that is registered to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffusion_perception_ros.datasets import EvaluationDataset, EvaluationSample, Skipped
from diffusion_perception_ros.datasets.bag_topics import (
    ImageTopic,
    ImageTopics,
    camera_info_topic,
    colors,
    comparable_stamps,
    find_topics,
)
from diffusion_perception_ros.datasets.bag_video import VideoReader
from diffusion_perception_ros.datasets.depth_checks import check_depth
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.image_messages import COLOR, DEPTH, color_of, depth_of
from diffusion_perception_ros.inference.video import header_of
from diffusion_perception_ros.recordings.recording import Recording, RecordingItem
from diffusion_perception_ros.sample import FloatImage


MAX_STAMP_DIFFERENCE = 20_000_000
"""Nanoseconds between colour and depth of one frame: below half a period at 25 Hz."""


class _Pair(NamedTuple):
    """Ordinals of a colour image and its depth image on their topics."""

    image: int
    depth: int | None


class _Pairing(NamedTuple):
    """A colour topic with the depth topic that goes with it."""

    image: ImageTopic
    depth: ImageTopic
    pairs: list[_Pair]
    gaps: list[int]
    """Nanoseconds from every colour image to the nearest depth image."""
    note: str


class BagDataset(EvaluationDataset):
    """Colour images of a bag paired with depth images by stamp, each with the nearest; several may share one.

    Args:
        path: rosbag2 folder or storage file, or ROS 1 bag.
        image_topic: in colour; by default the one with most frames that have depth.
        depth_topic: with the colour topic's frame_id; found by default.
        depth_required: Only frames that have depth. Otherwise every colour image is a sample.
        depth_scale: metres per unit of integer depth; by default millimetres.

    Raises:
        InputError: no such bag or topic, no colour images, or none that has the depth that is required.
    """

    def __init__(
        self,
        path: Path | str,
        image_topic: str | None = None,
        depth_topic: str | None = None,
        depth_required: bool = True,
        depth_scale: float | None = None,
    ) -> None:
        super().__init__(str(path))
        self.path = Path(path)
        self._recording = Recording(self.path)
        self._topics = find_topics(self._recording)
        self._depth_factor = 1.0 if depth_scale is None else depth_scale / 0.001
        self.damage = [Skipped(self.name, sentence) for sentence in self._recording.damage]
        self.notes = [*self._recording.notes, *self._topics.notes]
        for name, kind in ((image_topic, COLOR), (depth_topic, DEPTH)):
            _check_topic(self.path, self._topics, name, kind)
        pairing = _choose(self._topics, image_topic, depth_topic)
        image = pairing.image if pairing else _longest(self._topics, image_topic)
        if image is None or (depth_required and pairing is None):
            raise InputError(
                _nothing_to_read(self.path, self._topics, image_topic, depth_topic, self._recording.damage)
            )
        self._image, self._depth = image, pairing.depth if pairing else None
        self._pairs = pairing.pairs if pairing else []
        if pairing and pairing.note:
            self.notes.append(pairing.note)
        if pairing and depth_required:
            self.damage += _unpaired(self.name, pairing)
        if not depth_required:
            partner = dict(self._pairs)
            self._pairs = [_Pair(ordinal, partner.get(ordinal)) for ordinal in range(len(image.items))]
        self._video = VideoReader(self._recording, image.items, image.keys) if image.keys else None
        self.image_topic = image.name
        self.depth_topic = self._depth.name if self._depth else None
        self.stamps = [image.stamps[pair.image] for pair in self._pairs]
        """Of every sample's colour image, in nanoseconds."""

    @property
    def has_integer_depth(self) -> bool:
        """Its depth is stored in units that nothing in the recording names."""
        return self._depth is not None and not self._depth.form.upper().startswith("32FC1")

    @property
    def camera_info_topic(self) -> str | None:
        """The sibling of the colour topic, None if the bag lacks it."""
        sibling = camera_info_topic(self._image.name, self._image.type)
        return sibling if sibling in self._topics.cameras else None

    def __len__(self) -> int:
        return len(self._pairs)

    def name_of(self, index: int) -> str:
        return f"{self.path.name}/{self._pairs[index].image:04d}"

    def group_of(self, index: int) -> str:
        return self.path.name

    def __getitem__(self, index: int) -> EvaluationSample:
        pair = self._pairs[index]
        item = self._image.items[pair.image]
        name = self.name_of(index)
        message = self._content(item, name)
        try:
            rgb = self._video.frame(pair.image) if self._video else color_of(message)
        except InputError as error:
            raise InputError(f"{item.topic} {name}: {error}") from error
        frame_id = header_of(message).frame_id
        depth = None
        if pair.depth is not None and self._depth is not None:
            depth = self._read_depth(self._depth.items[pair.depth], name, rgb.shape)
        return EvaluationSample(
            rgb=rgb,
            depth=depth,
            intrinsics=self._topics.cameras.intrinsics(item.topic, item.type, frame_id, rgb.shape, self.notes),
            stamp=1e-9 * self.stamps[index],
            frame_id=frame_id,
            name=name,
            group=self.group_of(index),
        )

    def _content(self, item: RecordingItem, name: str) -> Any:
        try:
            return self._recording.message(item).content
        except InputError as error:
            raise InputError(f"{item.topic} {name}: {error}") from error

    def _read_depth(self, item: RecordingItem, name: str, shape: tuple[int, ...]) -> FloatImage:
        message = self._content(item, name)
        try:
            metres = depth_of(message)
        except InputError as error:
            raise InputError(f"{item.topic} {name}: {error}") from error
        if getattr(message, "encoding", "16UC1") != "32FC1" and self._depth_factor != 1.0:
            metres *= np.float32(self._depth_factor)
        return check_depth(metres, shape, f"{item.topic} {name}")


def _check_topic(path: Path, topics: ImageTopics, name: str | None, kind: str) -> None:
    """Raises InputError unless a topic that was asked for is there and holds what is asked of it."""
    if name is None:
        return
    if name in topics.unusable:
        raise InputError(f"{name} of {path} cannot be used: {topics.unusable[name]}")
    if name not in topics.by_name:
        raise InputError(f"{path} has no image topic {name}: it has {', '.join(sorted(topics.by_name)) or 'none'}")
    if topics.by_name[name].kind != kind:
        raise InputError(
            f"{name} of {path} holds {topics.by_name[name].kind} ({topics.by_name[name].form}), {kind} is needed"
        )


def _choose(topics: ImageTopics, image_topic: str | None, depth_topic: str | None) -> _Pairing | None:
    """The colour and the depth topic with most pairs; None without any pair."""
    pairings = _pairings(topics, image_topic, depth_topic)
    best = max(pairings, key=lambda pairing: len(pairing.pairs), default=None)
    return best if best is not None and best.pairs else None


def _pairings(topics: ImageTopics, image_topic: str | None, depth_topic: str | None) -> list[_Pairing]:
    depths = [topic for topic in topics.by_name.values() if topic.kind == DEPTH and depth_topic in (None, topic.name)]
    return [
        _pair(image, depth)
        for image in colors(topics, image_topic)
        for depth in depths
        if image.frame_ids & depth.frame_ids
    ]


def _pair(image: ImageTopic, depth: ImageTopic) -> _Pairing:
    """The nearest depth image of every colour image, where it is near enough."""
    images, depths, note = comparable_stamps(image, depth)
    order = np.argsort(depths, kind="stable")
    sorted_depths = np.array(depths, np.int64)[order]
    after = np.clip(np.searchsorted(sorted_depths, images), 0, len(depths) - 1)
    before = np.maximum(after - 1, 0)
    distances = [np.abs(sorted_depths[places] - np.array(images, np.int64)) for places in (before, after)]
    nearest = np.where(distances[0] <= distances[1], before, after)
    gaps = np.minimum(*distances)
    pairs = [
        _Pair(ordinal, int(order[place]))
        for ordinal, (place, gap) in enumerate(zip(nearest, gaps, strict=True))
        if gap <= MAX_STAMP_DIFFERENCE
    ]
    return _Pairing(image, depth, pairs, [int(gap) for gap in gaps], note)


def _longest(topics: ImageTopics, image_topic: str | None) -> ImageTopic | None:
    return max(colors(topics, image_topic), key=lambda topic: len(topic.items), default=None)


def _unpaired(name: str, pairing: _Pairing) -> list[Skipped]:
    """One sentence for all colour images without depth."""
    far = [(ordinal, gap) for ordinal, gap in enumerate(pairing.gaps) if gap > MAX_STAMP_DIFFERENCE]
    if not far:
        return []
    ordinal, gap = far[0]
    reason = (
        f"{len(far)} of the {len(pairing.gaps)} images of {pairing.image.name} have no depth on {pairing.depth.name} "
        f"within {MAX_STAMP_DIFFERENCE / 1e9:g} s and are left out, such as {ordinal:04d}, whose nearest is "
        f"{gap / 1e9:.3f} s away"
    )
    return [Skipped(name, reason)]


def _nothing_to_read(
    path: Path, topics: ImageTopics, image_topic: str | None, depth_topic: str | None, damage: Sequence[str]
) -> str:
    found = ", ".join(
        f"{topic.name} ({topic.kind}, {'/'.join(sorted(topic.frame_ids))})" for topic in topics.by_name.values()
    )
    pairings = _pairings(topics, image_topic, depth_topic)
    if not found:
        reason = "it has no images that can be used"
    elif not any(topic.kind == DEPTH for topic in topics.by_name.values()):
        reason = f"it has no depth; its image topics are {found}; record depth registered to the colour camera"
    elif not any(topic.kind == COLOR for topic in topics.by_name.values()):
        reason = f"it has no colour; its image topics are {found}"
    elif not pairings:
        reason = f"its image topics are {found}; record depth registered to the colour camera"
    else:
        nearest = min(pairings, key=lambda pairing: min(pairing.gaps))
        gap, names = min(nearest.gaps) / 1e9, (nearest.image.name, nearest.depth.name)
        reason = f"the nearest images of {names[0]} and {names[1]} are {gap:g} s apart"
    trouble = "; ".join([*damage[:1], *topics.notes[:3]])
    return (
        f"{path} has no colour images with depth in the same frame_id and within "
        f"{MAX_STAMP_DIFFERENCE / 1e9:g} s: {reason}" + (f" ({trouble})" if trouble else "")
    )
