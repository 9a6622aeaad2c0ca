"""Pictures to predict on, without ground truth: picture files, folders, videos and bags, one frame after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from diffusion_perception_ros.datasets import EvaluationDataset
from diffusion_perception_ros.datasets.bag_topics import IMAGE_TYPES, Cameras, stamp_of
from diffusion_perception_ros.datasets.open import open_dataset
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.image_messages import COLOR, color_of, kind_of
from diffusion_perception_ros.inference.picture_files import PICTURE_SUFFIXES, read_picture
from diffusion_perception_ros.inference.video import MOST_DELAYED, Packet, VideoDecoder, header_of, packet_of
from diffusion_perception_ros.recordings.message_types import CAMERA_INFO
from diffusion_perception_ros.recordings.recording import Message, Recording, is_recording
from diffusion_perception_ros.sample import Intrinsics, UInt8Image


USUAL_RATE = 30.0
"""Frames per second of videos that do not say."""
_NO_FRAME = "the video gives no frame for it: a packet may be missing"


@dataclass(frozen=True)
class InputFrame:
    """One picture, or the reason why there is none."""

    name: str
    """For messages: the file, or the file and the number of the frame."""
    stem: str
    """Short name for what is made of it; not unique."""
    rgb: UInt8Image | None = None
    problem: str | None = None
    """One sentence; set when `rgb` is None."""
    intrinsics: Intrinsics | None = None
    stamp: float | None = None
    """Seconds; of a video since its start, None for pictures."""


class Frames(Protocol):
    """A source of frames, which can be walked through once."""

    notes: list[str]
    """What a reader should know although nothing is left out; complete after the walk."""

    def __len__(self) -> int:
        """Number of frames, 0 if unknown; only for progress."""

    def __iter__(self) -> Iterator[InputFrame]: ...


def open_frames(path: Path, image_topic: str | None = None) -> Frames:
    """Frames of a picture file, a folder (its pictures in order of name), a video or a bag.

    Args:
        path: The input.
        image_topic: Bags: colour topic, by default the first one recorded.

    Raises:
        InputError: no such input, or a folder without pictures.
    """
    if not path.exists():
        raise InputError(f"there is no file or folder {path}")
    if is_recording(path):
        return BagFrames(path, image_topic)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES)
        return PictureFrames(files) if files else _frames_of_dataset(path)
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return PictureFrames([path])
    return VideoFrames(path)


def _frames_of_dataset(path: Path) -> Frames:
    try:
        return DatasetFrames(open_dataset(path))
    except InputError as error:
        suffixes = ", ".join(sorted(PICTURE_SUFFIXES))
        raise InputError(
            f"{path} has no pictures ({suffixes}) and is neither a bag nor a data set: {error}"
        ) from error


class DatasetFrames:
    """The images of a data set, with its cameras and without its ground truth."""

    def __init__(self, dataset: EvaluationDataset) -> None:
        self._dataset = dataset
        self.notes = dataset.notes

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator[InputFrame]:
        for index in range(len(self._dataset)):
            name = self._dataset.name_of(index)
            stem = name.replace("/", "_")
            try:
                sample = self._dataset[index]
            except InputError as error:
                yield InputFrame(name, stem, problem=str(error))
            else:
                yield InputFrame(name, stem, sample.rgb, intrinsics=sample.intrinsics)


class PictureFrames:
    """Picture files."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files
        self.notes: list[str] = []

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[InputFrame]:
        for file in self.files:
            try:
                yield InputFrame(str(file), file.stem, read_picture(file))
            except InputError as error:
                yield InputFrame(str(file), file.stem, problem=str(error))


class VideoFrames:
    """A video file, as far as OpenCV reads it.

    Raises:
        InputError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.notes: list[str] = []
        self._path = path
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise InputError(f"{path} is neither a picture, a video nor a bag that can be read")

    def __len__(self) -> int:
        return max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __iter__(self) -> Iterator[InputFrame]:
        count = 0
        announced = len(self)
        rate = self._capture.get(cv2.CAP_PROP_FPS) or USUAL_RATE
        while True:
            found, picture = self._capture.read()
            if not found:
                break
            rgb = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)
            name, stem = f"{self._path} frame {count}", f"{self._path.stem}_{count:06d}"
            yield InputFrame(name, stem, rgb, stamp=count / rate)
            count += 1
        self._capture.release()
        # Containers round their frame counts, so a small difference means nothing.
        if count < 0.95 * announced or count == 0:
            yield InputFrame(
                str(self._path), self._path.stem, problem=f"{self._path} is damaged: it ends after {count} frames"
            )


class BagFrames:
    """Colour images of one topic of a bag, with the intrinsics that the bag gives for them.

    Args:
        path: The bag.
        image_topic: Its colour topic, by default the first one recorded.

    Raises:
        InputError: it cannot be read, or has no such topic.
    """

    def __init__(self, path: Path, image_topic: str | None) -> None:
        self._path = path
        self._recording = Recording(path)
        if image_topic is not None and image_topic not in self._recording.topics:
            raise InputError(self._nothing(f"images on {image_topic}"))
        self._topic = image_topic
        self.notes = [*self._recording.notes, *self._recording.left_out_notes]
        self._decoder: VideoDecoder | None = None
        self._cameras = Cameras()
        for message in self._recording.messages(types={CAMERA_INFO}):
            self._cameras.add(message.topic, message.content)

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[InputFrame]:
        count, other, waiting = 0, dict[str, str](), dict[int, Message]()
        self._decoder = None
        topics = None if self._topic is None else {self._topic}
        for message in self._recording.messages(topics, IMAGE_TYPES):
            kind = kind_of(message.content, message.topic)
            if kind.kind != COLOR:
                other[message.topic] = kind.reason or f"it holds {kind.kind} ({kind.form})"
            elif self._topic in (None, message.topic):
                self._topic = message.topic
                packet = packet_of(message.content)
                if packet is None:
                    yield self._image(message, count)
                else:
                    waiting[count] = message
                    yield from self._fed(packet, count, waiting)
                count += 1
        yield from self._flushed(waiting)
        stem = self._path.stem
        for sentence in self._recording.damage:
            yield InputFrame(str(self._path), stem, problem=sentence)
        if not count:
            wanted = f"colour images on {self._topic}" if self._topic else "colour images"
            reasons = "; ".join(f"{name} is not used: {reason}" for name, reason in other.items())
            yield InputFrame(
                str(self._path), stem, problem=self._nothing(wanted) + (f"; {reasons}" if reasons else "")
            )

    def _nothing(self, wanted: str) -> str:
        has = ", ".join(sorted(name for name, kind in self._recording.topics.items() if kind in IMAGE_TYPES))
        return f"{self._path} has no {wanted}; its image topics: {has or 'none'}"

    def _fed(self, packet: Packet, number: int, waiting: dict[int, Message]) -> Iterator[InputFrame]:
        """Frames of a video that are done after a packet; those that will never be are named."""
        try:
            if self._decoder is None:
                if not packet.is_key:
                    raise InputError("it comes before the first key frame of the video")
                self._decoder = VideoDecoder(packet.codec)
            yield from self._decoded(self._decoder.feed(packet.data, number), waiting)
        except InputError as error:
            if number in waiting:
                yield self._problem(waiting.pop(number), number, str(error))
        for late in [ordinal for ordinal in waiting if ordinal <= number - MOST_DELAYED]:
            yield self._problem(waiting.pop(late), late, _NO_FRAME)

    def _flushed(self, waiting: dict[int, Message]) -> Iterator[InputFrame]:
        reason = _NO_FRAME
        if self._decoder is not None:
            try:
                yield from self._decoded(self._decoder.flush(), waiting)
            except InputError as error:
                reason = str(error)
        for number, message in sorted(waiting.items()):
            yield self._problem(message, number, reason)

    def _decoded(self, done: Iterable[tuple[int, UInt8Image]], waiting: dict[int, Message]) -> Iterator[InputFrame]:
        for number, rgb in done:
            if number in waiting:
                yield self._frame(waiting.pop(number), number, rgb)

    def _problem(self, message: Message, number: int, reason: str) -> InputFrame:
        name = f"{self._path} {message.topic} frame {number}"
        return InputFrame(name, f"{self._path.stem}_{number:06d}", problem=f"{name}: {reason}")

    def _image(self, message: Message, number: int) -> InputFrame:
        try:
            rgb = color_of(message.content)
        except InputError as error:
            return self._problem(message, number, str(error))
        return self._frame(message, number, rgb)

    def _frame(self, message: Message, number: int, rgb: UInt8Image) -> InputFrame:
        stem = f"{self._path.stem}_{number:06d}"
        header = header_of(message.content)
        stamp = stamp_of(header)
        if stamp <= 0:
            note = f"header stamps of {message.topic} are 0: the times at which they were recorded are used instead"
            if note not in self.notes:
                self.notes.append(note)
            stamp = message.time
        intrinsics = self._cameras.intrinsics(message.topic, message.type, header.frame_id, rgb.shape, self.notes)
        name = f"{self._path} {message.topic} frame {number}"
        return InputFrame(name, stem, rgb, intrinsics=intrinsics, stamp=stamp * 1e-9)
