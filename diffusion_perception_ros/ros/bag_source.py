"""What `bag_player` plays: rosbag2 (sqlite3, mcap, compressed), ROS 1 bags, folders of pictures; all as CDR."""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.picture_files import PICTURE_SUFFIXES, read_picture
from diffusion_perception_ros.recordings.recording import Recording, RecordingItem, is_recording
from diffusion_perception_ros.ros.messages import image_message, message_type


STATIC_TOPICS = {"/tf_static"}
"""Latched even where the recording does not say so, as in damaged files."""


class BagMessage(NamedTuple):
    """One recorded message."""

    topic: str
    stamp: int
    """Nanoseconds, when it was recorded."""
    data: bytes
    """CDR with its encapsulation header, as DDS carries it."""


@dataclass
class BagSource:
    """An opened recording; `messages()` can be called again and again."""

    topics: dict[str, str]
    """Topic to type, e.g. `sensor_msgs/msg/Image`."""
    messages: Callable[[], Iterable[BagMessage]]
    """Messages in the order of the recording. Damaged files and unreadable pictures are passed over and noted."""
    latched: set[str] = field(default_factory=set)
    """Topics that were offered transient local."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Topics that cannot be played, and why."""
    notes: list[str] = field(default_factory=list)
    """What a reader should know although nothing is lost."""
    damage: list[str] = field(default_factory=list)
    """One sentence for everything that could not be read, complete after one iteration."""

    def lost(self, sentence: str) -> None:
        """Adds to `damage`, once."""
        if sentence not in self.damage:
            self.damage.append(sentence)

    def note(self, sentence: str) -> None:
        """Adds to `notes`, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)


@contextlib.contextmanager
def open_source(path: Path, picture_rate: float, picture_frame_id: str) -> Iterator[BagSource]:
    """Opens a recording.

    Args:
        path: rosbag2 folder or storage file, ROS 1 `.bag` file, or folder of pictures.
        picture_rate: pictures per second of a folder.
        picture_frame_id: frame of the pictures of a folder.

    Raises:
        InputError: nothing of it can be read.
    """
    if not path.exists():
        raise InputError(f"there is no bag or folder {path}")
    if is_recording(path):
        with _recorded(path) as source:
            yield source
    else:
        yield _pictures(path, picture_rate, picture_frame_id)


@contextlib.contextmanager
def _recorded(path: Path) -> Iterator[BagSource]:
    """Everything becomes CDR of ROS 2; what cannot is named in `left_out`."""
    with Recording(path) as recording:
        stamps = _Stamps()

        def messages() -> Iterator[BagMessage]:
            for item in recording.items():
                try:
                    data = recording.data(item)
                except InputError as error:
                    recording.lose(item, str(error))
                    continue
                yield BagMessage(item.topic, item.time, stamps.completed(item, data, source.note))
            recording.settle()
            for sentence in recording.damage:
                source.lost(sentence)

        source = BagSource(recording.topics, messages, left_out=recording.left_out)
        source.notes, source.damage = list(recording.notes), list(recording.damage)
        source.latched = recording.latched | STATIC_TOPICS.intersection(recording.topics)
        yield source


class _Stamps:
    """Puts the time of recording into headers that have no stamp: later nodes pair images by their stamps."""

    def __init__(self) -> None:
        self._has_header: dict[str, bool] = {}

    def completed(self, item: RecordingItem, data: bytes, note: Callable[[str], None]) -> bytes:
        """The message with a stamp in its header, if it begins with one."""
        if item.type not in self._has_header:
            self._has_header[item.type] = _begins_with_header(item.type)
        if not self._has_header[item.type] or len(data) < 12 or any(data[4:12]):
            return data
        note(
            f"header stamps of {item.topic} are 0: the times at which they were recorded are put in their place, "
            f"so that "
            "images, depth and camera_info can be paired"
        )
        order = "<" if data[1] & 1 else ">"
        return data[:4] + struct.pack(f"{order}iI", *divmod(item.time, 1_000_000_000)) + data[12:]


def _begins_with_header(kind: str) -> bool:
    try:
        fields = message_type(kind).get_fields_and_field_types()
    except InputError:
        return False
    return next(iter(fields.items()), None) == ("header", "std_msgs/Header")


def _pictures(path: Path, rate: float, frame_id: str) -> BagSource:
    """Topics `image_raw` and `camera_info`, relative to the node; stamps start at the present."""
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES) if path.is_dir() else []
    if not files:
        raise InputError(f"{path} is neither a bag nor a folder with pictures ({', '.join(sorted(PICTURE_SUFFIXES))})")
    start = time.time_ns()

    def messages() -> Iterator[BagMessage]:
        for index, file in enumerate(files):
            try:
                rgb = read_picture(file)
            except InputError as error:
                source.lost(str(error))
                continue
            stamp = start + round(index * 1e9 / rate)
            header = Header(frame_id=frame_id)
            header.stamp.sec, header.stamp.nanosec = divmod(stamp, 1_000_000_000)
            # Without a calibration K stays 0, which says so.
            info = CameraInfo(header=header, height=rgb.shape[0], width=rgb.shape[1])
            yield BagMessage("camera_info", stamp, serialize_message(info))
            yield BagMessage("image_raw", stamp, serialize_message(image_message(header, rgb)))

    topics = {"image_raw": "sensor_msgs/msg/Image", "camera_info": "sensor_msgs/msg/CameraInfo"}
    source = BagSource(topics, messages)
    return source
