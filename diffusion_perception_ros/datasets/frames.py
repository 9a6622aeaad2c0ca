"""Pictures to predict on, without ground truth: picture files, folders, videos and bags, one frame after the other."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from diffusion_perception_ros.datasets.bag_reading import BagMessage, is_bag, read_messages
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.image_encodings import COLOR_ENCODINGS, decode_compressed, decode_image
from diffusion_perception_ros.inference.picture_files import PICTURE_SUFFIXES, read_picture
from diffusion_perception_ros.sample import Intrinsics, UInt8Image


_IMAGE = "sensor_msgs/msg/Image"
_COMPRESSED = "sensor_msgs/msg/CompressedImage"
_IMAGES = {_IMAGE, _COMPRESSED}
_CAMERA_INFO = "sensor_msgs/msg/CameraInfo"


USUAL_RATE = 30.0
"""Frames per second of videos that do not say."""


@dataclass(frozen=True)
class Frame:
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

    def __len__(self) -> int:
        """Number of frames, 0 if unknown; only for progress."""

    def __iter__(self) -> Iterator[Frame]: ...


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
    if is_bag(path):
        return BagFrames(path, image_topic)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES)
        if not files:
            raise InputError(f"{path} has no pictures ({', '.join(sorted(PICTURE_SUFFIXES))}) and is not a bag")
        return PictureFrames(files)
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return PictureFrames([path])
    return VideoFrames(path)


class PictureFrames:
    """Picture files."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Frame]:
        for file in self.files:
            try:
                yield Frame(str(file), file.stem, read_picture(file))
            except InputError as error:
                yield Frame(str(file), file.stem, problem=str(error))


class VideoFrames:
    """A video file, as far as OpenCV reads it.

    Raises:
        InputError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise InputError(f"{path} is neither a picture, a video nor a bag that can be read")

    def __len__(self) -> int:
        return max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __iter__(self) -> Iterator[Frame]:
        count = 0
        announced = len(self)
        rate = self._capture.get(cv2.CAP_PROP_FPS) or USUAL_RATE
        while True:
            found, picture = self._capture.read()
            if not found:
                break
            rgb = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)
            name, stem = f"{self._path} frame {count}", f"{self._path.stem}_{count:06d}"
            yield Frame(name, stem, rgb, stamp=count / rate)
            count += 1
        self._capture.release()
        # Containers round their frame counts, so a small difference means nothing.
        if count < 0.95 * announced or count == 0:
            yield Frame(
                str(self._path), self._path.stem, problem=f"{self._path} is damaged: it ends after {count} frames"
            )


class BagFrames:
    """Colour images of one topic of a bag, with the intrinsics that the bag gives for them."""

    def __init__(self, path: Path, image_topic: str | None) -> None:
        self._path = path
        self._topic = image_topic
        self._damage: list[str] = []
        self._cameras: dict[str, Any] = {}
        for message in read_messages(path, None, {_CAMERA_INFO}, []):
            self._cameras.setdefault(message.topic, message.content)

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[Frame]:
        topics = None if self._topic is None else {self._topic}
        count = 0
        for message in read_messages(self._path, topics, _IMAGES, self._damage):
            if self._topic is None and _is_color(message):
                self._topic = message.topic
            if message.topic == self._topic:
                yield self._frame(message, count)
                count += 1
        stem = self._path.stem
        for sentence in dict.fromkeys(self._damage):
            yield Frame(str(self._path), stem, problem=sentence)
        if not count and not self._damage:
            wanted = f"images on {self._topic}" if self._topic else "colour images"
            has = ", ".join(sorted({message.topic for message in read_messages(self._path, None, _IMAGES, [])}))
            yield Frame(
                str(self._path), stem, problem=f"{self._path} has no {wanted}; its image topics: {has or 'none'}"
            )

    def _frame(self, message: BagMessage, number: int) -> Frame:
        name = f"{self._path} {message.topic} frame {number}"
        stem = f"{self._path.stem}_{number:06d}"
        content = message.content
        try:
            if message.type == _COMPRESSED:
                rgb = decode_compressed(content.data, content.format)
            else:
                rgb = decode_image(
                    content.data, content.encoding, content.width, content.height, content.step, content.is_bigendian
                )
        except InputError as error:
            return Frame(name, stem, problem=f"{name}: {error}")
        stamp = content.header.stamp
        seconds = stamp.sec + 1e-9 * stamp.nanosec
        return Frame(name, stem, rgb, intrinsics=self._intrinsics(message, rgb), stamp=seconds)

    def _intrinsics(self, message: BagMessage, rgb: UInt8Image) -> Intrinsics | None:
        """Of the sibling camera_info topic, else of one with the same frame_id; None if there is none or K is zero."""
        base = message.topic.removesuffix("/compressed").rpartition("/")[0]
        frame_id = message.content.header.frame_id
        same_frame = (info for info in self._cameras.values() if info.header.frame_id == frame_id)
        info = self._cameras.get(f"{base}/camera_info") or next(same_frame, None)
        if info is None:
            return None
        k = info.k if hasattr(info, "k") else info.K  # ROS 1 spells it in upper case
        fx, fy, cx, cy = (float(k[index]) for index in (0, 4, 2, 5))
        if not all(map(math.isfinite, (fx, fy, cx, cy))) or min(fx, fy, info.width, info.height) <= 0:
            return None
        return Intrinsics(int(info.width), int(info.height), fx, fy, cx, cy).resized(rgb.shape[1], rgb.shape[0])


def _is_color(message: BagMessage) -> bool:
    if message.type == _COMPRESSED:
        return "compressedDepth" not in message.content.format
    return message.content.encoding in COLOR_ENCODINGS and message.content.encoding not in ("16UC1", "mono16")
