"""What `bag_player` plays: rosbag2 (sqlite3, mcap, compressed), ROS 1 bags, folders of pictures; all as CDR."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

from rclpy.serialization import serialize_message
from rosbags.convert.converter import STATIC_MSGTYPE_RENAMES, migrate_bytes
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection, ConnectionExtRosbag1, ConnectionExtRosbag2, QosDurability
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from diffusion_perception_ros.bag_salvage import salvage
from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.picture_files import PICTURE_SUFFIXES, read_picture
from diffusion_perception_ros.ros.messages import image_message


STORAGES = {".mcap", ".db3"}
STATIC_TOPICS = {"/tf_static"}
"""Latched even where the recording does not say so, as in damaged files."""

Item = TypeVar("Item")


class Message(NamedTuple):
    """One recorded message."""

    topic: str
    stamp: int
    """Nanoseconds, when it was recorded."""
    data: bytes
    """CDR with its encapsulation header, as DDS carries it."""


@dataclass
class Source:
    """An opened recording; `messages()` can be called again and again."""

    topics: dict[str, str]
    """Topic to type, e.g. `sensor_msgs/msg/Image`."""
    messages: Callable[[], Iterable[Message]]
    """Messages in the order of the recording. Damaged files and unreadable pictures are passed over and noted."""
    latched: set[str] = field(default_factory=set)
    """Topics that were offered transient local."""
    damage: list[str] = field(default_factory=list)
    """One sentence for everything that could not be read, complete after one iteration."""

    def note(self, sentence: str) -> None:
        """Adds to `damage`, once."""
        if sentence not in self.damage:
            self.damage.append(sentence)

    def guarded(self, file: Path, items: Iterable[Item]) -> Iterator[Item]:
        """`items` until one of them cannot be read, which is noted."""
        try:
            yield from items
        except InputError as error:
            self.note(str(error))
        except Exception as error:  # decoders raise anything when they meet damaged bytes
            self.note(f"{file} is damaged: it cannot be read further ({str(error) or type(error).__name__})")


@contextlib.contextmanager
def open_source(path: Path, picture_rate: float, picture_frame_id: str) -> Iterator[Source]:
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
    if path.suffix == ".bag":
        with _ros1(path) as source:
            yield source
    elif path.suffix in STORAGES or (path / "metadata.yaml").is_file() or _storage_files(path):
        with _ros2(path) as source:
            yield source
    else:
        yield _pictures(path, picture_rate, picture_frame_id)


@contextlib.contextmanager
def _ros1(path: Path) -> Iterator[Source]:
    """Messages are converted to their ROS 2 definitions; types that ROS 2 does not know are left out."""
    ros2_types = get_typestore(Stores.LATEST)
    defaults: dict[str, object] = {}
    try:
        reader = AnyReader([path])
        reader.open()
    except Exception as error:  # decoders raise anything when they meet damaged bytes
        raise InputError(f"{path} cannot be read as a ROS 1 bag: {error}") from error
    with contextlib.closing(reader):
        renamed = {item.msgtype: STATIC_MSGTYPE_RENAMES.get(item.msgtype, item.msgtype) for item in reader.connections}
        known = [item for item in reader.connections if renamed[item.msgtype] in ros2_types.fielddefs]

        def messages() -> Iterator[Message]:
            for connection, stamp, data in reader.messages(known) if known else ():
                kind = connection.msgtype
                cdr = migrate_bytes(
                    reader.typestore, ros2_types, kind, renamed[kind], defaults, data, src_is2=False, dst_is2=True
                )
                yield Message(connection.topic, stamp, bytes(cdr))

        source = Source(
            {item.topic: renamed[item.msgtype] for item in known}, lambda: source.guarded(path, messages())
        )
        source.latched.update(
            item.topic for item in known if isinstance(item.ext, ConnectionExtRosbag1) and item.ext.latching
        )
        yield source


@contextlib.contextmanager
def _ros2(path: Path) -> Iterator[Source]:
    """A bag that cannot be opened as a whole is read file by file, damaged files as far as they go."""
    with contextlib.ExitStack() as stack:
        parts: list[tuple[Path, Reader | None]] = []
        try:
            parts.append((path, stack.enter_context(Reader(path))))
        except Exception as error:  # decoders raise anything when they meet damaged bytes
            files = _storage_files(path)
            if not files:
                raise InputError(f"{path} cannot be read as a rosbag2 bag: {error}") from error
            for file in files:
                try:
                    parts.append((file, stack.enter_context(Reader(file))))
                except Exception:
                    parts.append((file, None))

        def messages() -> Iterator[Message]:
            for file, reader in parts:
                yield from source.guarded(file, _messages(file, reader))

        source = Source({}, messages)
        for file, reader in parts:
            if reader is None:
                records = source.guarded(file, salvage(file))
                source.topics.update({topic: kind for topic, kind, _, _ in records})
            else:
                source.topics.update({item.topic: item.msgtype for item in reader.connections})
                source.latched.update(item.topic for item in reader.connections if _is_latched(item))
        source.latched.update(STATIC_TOPICS.intersection(source.topics))
        if not source.topics:
            raise InputError("; ".join(source.damage) or f"{path} holds no topics")
        yield source


def _storage_files(path: Path) -> list[Path]:
    files = [path] if path.is_file() else sorted(path.iterdir())
    return [file for file in files if file.suffix in STORAGES]


def _messages(file: Path, reader: Reader | None) -> Iterator[Message]:
    if reader is None:
        for topic, _, stamp, data in salvage(file):
            yield Message(topic, stamp, data)
    else:
        for connection, stamp, data in reader.messages():
            yield Message(connection.topic, stamp, data)


def _is_latched(connection: Connection) -> bool:
    assert isinstance(connection.ext, ConnectionExtRosbag2)
    return any(qos.durability == QosDurability.TRANSIENT_LOCAL for qos in connection.ext.offered_qos_profiles)


def _pictures(path: Path, rate: float, frame_id: str) -> Source:
    """Topics `image_raw` and `camera_info`, relative to the node; stamps start at the present."""
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES) if path.is_dir() else []
    if not files:
        raise InputError(f"{path} is neither a bag nor a folder with pictures ({', '.join(sorted(PICTURE_SUFFIXES))})")
    start = time.time_ns()

    def messages() -> Iterator[Message]:
        for index, file in enumerate(files):
            try:
                rgb = read_picture(file)
            except InputError as error:
                source.note(str(error))
                continue
            stamp = start + round(index * 1e9 / rate)
            header = Header(frame_id=frame_id)
            header.stamp.sec, header.stamp.nanosec = divmod(stamp, 1_000_000_000)
            # Without a calibration K stays 0, which says so.
            info = CameraInfo(header=header, height=rgb.shape[0], width=rgb.shape[1])
            yield Message("camera_info", stamp, serialize_message(info))
            yield Message("image_raw", stamp, serialize_message(image_message(header, rgb)))

    topics = {"image_raw": "sensor_msgs/msg/Image", "camera_info": "sensor_msgs/msg/CameraInfo"}
    source = Source(topics, messages)
    return source
