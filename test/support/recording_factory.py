"""Recordings message by message, as recorders, converters and crashes leave them."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from mcap.writer import CompressionType, IndexType
from mcap.writer import Writer as McapWriter
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from diffusion_perception_ros.recordings.message_types import EXTRA_TYPES


TYPES = get_typestore(Stores.LATEST)
for _name, _text in EXTRA_TYPES.items():
    TYPES.register(get_types_from_msg(_text, _name))
ROS1_TYPES = get_typestore(Stores.ROS1_NOETIC)
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
INFO, STRING = "sensor_msgs/msg/CameraInfo", "std_msgs/msg/String"
COLOR_TOPIC, DEPTH_TOPIC, INFO_TOPIC = "/cam/color/image_raw", "/cam/depth/image_raw", "/cam/color/camera_info"
START = 1_700_000_000_000_000_000
WIDTH, HEIGHT = 48, 36


def encode_video(frames: Sequence[np.ndarray], codec: str, gop: int = 4, b_frames: int = 0) -> list[bytes]:
    """One packet per frame, key frames every `gop` of them; in the order of decoding."""
    import av

    context: Any = av.CodecContext.create(codec, "w")
    context.height, context.width = frames[0].shape[:2]
    context.pix_fmt, context.time_base, context.gop_size = "yuv420p", Fraction(1, 30), gop
    context.options = {"preset": "ultrafast", "bf": str(b_frames)}
    if codec == "libx264":
        context.options |= {
            "x264-params": f"keyint={gop}:min-keyint={gop}:scenecut=0:bframes={b_frames}:repeat-headers=1"
        }
        context.options |= {} if b_frames else {"tune": "zerolatency"}
    if codec == "libx265":
        context.options |= {"x265-params": f"keyint={gop}:min-keyint={gop}:bframes=0:repeat-headers=1:log-level=none"}
        context.options |= {"tune": "zerolatency"}
    packets = []
    for number, rgb in enumerate([*frames, None]):
        frame = None if rgb is None else av.VideoFrame.from_ndarray(rgb, format="rgb24")
        if frame is not None:
            frame.pts = number
        packets += [bytes(packet) for packet in context.encode(frame)]
    return packets


class Recorded(NamedTuple):
    """One message; fields that a type of ROS 1 has besides are filled in when it is written."""

    topic: str
    type: str
    time: int
    fields: dict[str, Any]


def header(stamp: int, frame_id: str = "camera") -> dict[str, Any]:
    return {"stamp": dict(zip(("sec", "nanosec"), divmod(stamp, 10**9), strict=True)), "frame_id": frame_id}


def image(
    topic: str, time: int, pixels: np.ndarray, encoding: str, stamp: int | None = None, frame: str = "camera"
) -> Recorded:
    data = np.ascontiguousarray(pixels).view(np.uint8).reshape(-1)
    height, width = pixels.shape[:2]
    fields = {"header": header(time if stamp is None else stamp, frame), "height": height, "width": width}
    fields |= {"encoding": encoding, "is_bigendian": 0, "step": data.size // height, "data": data}
    return Recorded(topic, IMAGE, time, fields)


def compressed(
    topic: str, time: int, data: bytes, format: str, stamp: int | None = None, frame: str = "camera"
) -> Recorded:
    fields = {"header": header(time if stamp is None else stamp, frame), "format": format}
    return Recorded(topic, COMPRESSED, time, fields | {"data": np.frombuffer(data, np.uint8)})


def camera_info(topic: str, time: int, width: int, height: int, **changes: Any) -> Recorded:
    focal = changes.pop("focal", 40.0)
    k = [focal, 0, (width - 1) / 2, 0, focal, (height - 1) / 2, 0, 0, 1]
    roi = {"x_offset": 0, "y_offset": 0, "height": 0, "width": 0, "do_rectify": False} | changes.pop("roi", {})
    fields = {"header": header(time), "height": height, "width": width, "distortion_model": "plumb_bob"}
    fields |= {"d": np.zeros(5), "k": np.array(k, float), "r": np.eye(3).ravel()}
    fields |= {"p": np.array([*k[:3], 0, *k[3:6], 0, *k[6:], 0], float), "binning_x": 0, "binning_y": 0, "roi": roi}
    fields |= {name: np.array(value, float) if name in "dk" else value for name, value in changes.items()}
    return Recorded(topic, INFO, time, fields)


def text(topic: str, time: int, words: str = "hello") -> Recorded:
    return Recorded(topic, STRING, time, {"data": words})


def rgb_of(index: int) -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), (20 + 20 * index, 60, 90), np.uint8)


def depth_of(index: int) -> np.ndarray:
    depth = np.full((HEIGHT, WIDTH), 1000 + 100 * index, np.uint16)
    depth += np.arange(HEIGHT, dtype=np.uint16)[:, None]
    depth[:2] = 0
    return depth


def png(values: np.ndarray) -> bytes:
    return cv2.imencode(".png", values)[1].tobytes()


def jpeg(rgb: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", rgb[..., ::-1])[1].tobytes()


def noise(frames: int) -> list[Recorded]:
    """Colour images that do not compress, so that a file that is cut off loses some."""
    pixels = np.random.default_rng(0).integers(0, 256, (frames, 120, 160, 3)).astype(np.uint8)
    return [image(COLOR_TOPIC, START + 10**8 * index, rgb, "rgb8") for index, rgb in enumerate(pixels)]


def camera(frames: int = 6, period: int = 100_000_000, stamped: bool = True) -> list[Recorded]:
    """Colour, registered depth and camera_info of one camera, in the order of time."""
    found = []
    for index in range(frames):
        time = START + index * period
        found.append(camera_info(INFO_TOPIC, time, WIDTH, HEIGHT))
        found.append(image(COLOR_TOPIC, time + 1000, rgb_of(index), "rgb8", None if stamped else 0))
        found.append(image(DEPTH_TOPIC, time + 2000, depth_of(index), "16UC1", None if stamped else 0))
    return found


def _message(types: Typestore, kind: str, fields: dict[str, Any]) -> Any:
    """A message of nested dictionaries; ROS 1 has other names for some of the fields."""
    values = {}
    for name, (_, described) in types.fielddefs[kind][1]:
        value = fields.get(name, fields.get(name.lower(), 0))
        values[name] = _message(types, described, value) if isinstance(value, dict) else value
    return types.types[kind](**values)


def cdr(recorded: Recorded) -> bytes:
    return bytes(TYPES.serialize_cdr(_message(TYPES, recorded.type, recorded.fields), recorded.type))


def ros1_bytes(recorded: Recorded) -> bytes:
    return bytes(ROS1_TYPES.serialize_ros1(_message(ROS1_TYPES, recorded.type, recorded.fields), recorded.type))


def write_rosbag2(path: Path, entries: Sequence[Recorded], mcap: bool = False, compression: Any = None) -> Path:
    writer = Writer2(path, version=9, storage_plugin=StoragePlugin.MCAP if mcap else StoragePlugin.SQLITE3)
    if compression is not None:
        writer.set_compression(*compression)
    with writer as bag:
        connections: dict[str, Any] = {}
        for entry in entries:
            if entry.topic not in connections:
                connections[entry.topic] = bag.add_connection(entry.topic, entry.type, typestore=TYPES)
            bag.write(connections[entry.topic], entry.time, cdr(entry))
    return path


def write_mcap(
    path: Path,
    entries: Sequence[Recorded],
    chunk_size: int | None = 1 << 16,
    compression: CompressionType = CompressionType.ZSTD,
    indexed: bool = True,
    others: Sequence[tuple[str, str, str, bytes, str]] = (),
    definitions: bool = True,
    ros1: bool = False,
) -> Path:
    """Entries in the given order.

    Args:
        chunk_size: bytes; None = messages outside of chunks.
        others: topic, schema name (empty: none), schema encoding, schema, message encoding of channels with one
        message.
    """
    writer = McapWriter(
        str(path),
        chunk_size=chunk_size or 1024,
        compression=compression,
        index_types=IndexType.ALL if indexed else IndexType.NONE,
        use_chunking=chunk_size is not None,
        use_statistics=indexed,
        use_summary_offsets=indexed,
        repeat_channels=indexed,
        repeat_schemas=indexed,
    )
    writer.start("ros1" if ros1 else "ros2", "test")
    for topic, name, encoding, schema, message_encoding in others:
        number = writer.register_schema(name, encoding, schema) if name else 0
        channel = writer.register_channel(topic, message_encoding, number)
        writer.add_message(channel, entries[0].time, b"{}", entries[0].time)
    channels: dict[str, int] = {}
    for entry in entries:
        if entry.topic not in channels:
            store = ROS1_TYPES if ros1 else TYPES
            words = store.generate_msgdef(entry.type, ros_version=1 if ros1 else 2)[0] if definitions else ""
            name = entry.type.replace("/msg", "") if ros1 else entry.type
            schema = writer.register_schema(name, "ros1msg" if ros1 else "ros2msg", words.encode())
            channels[entry.topic] = writer.register_channel(entry.topic, "ros1" if ros1 else "cdr", schema)
        data = ros1_bytes(entry) if ros1 else cdr(entry)
        writer.add_message(channels[entry.topic], entry.time, data, entry.time)
    writer.finish()
    return path


def write_ros1(
    path: Path, entries: Sequence[Recorded], compression: Any = None, custom: Sequence[tuple[str, str, str]] = ()
) -> Path:
    """A ROS 1 bag; `custom` are topics with one message each: topic, type, definition."""
    writer = Writer1(path)
    writer.chunk_threshold = 20_000
    if compression is not None:
        writer.set_compression(compression)
    with writer as bag:
        for topic, kind, definition in custom:
            connection = bag.add_connection(topic, kind, msgdef=definition, md5sum="0" * 32)
            bag.write(connection, entries[0].time, b"\1\2\3\4")
        connections: dict[str, Any] = {}
        for entry in entries:
            if entry.topic not in connections:
                connections[entry.topic] = bag.add_connection(entry.topic, entry.type, typestore=ROS1_TYPES)
            bag.write(connections[entry.topic], entry.time, ros1_bytes(entry))
    return path


def kill_recorder(bag: Path, entries: Sequence[Recorded], checkpointed: int, mode: str = "wal") -> Path:
    """Leaves a sqlite bag as a recorder that was killed: only the first messages are in the database itself."""
    write_rosbag2(bag, entries)
    database = next(bag.glob("*.db3"))
    connection = sqlite3.connect(database)
    connection.execute(f"PRAGMA journal_mode={mode}")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    rows = connection.execute("SELECT id, topic_id, timestamp, data FROM messages ORDER BY id").fetchall()
    connection.execute("DELETE FROM messages WHERE id > ?", (checkpointed,))
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for row in rows[checkpointed:]:
        connection.execute("INSERT INTO messages (id, topic_id, timestamp, data) VALUES (?, ?, ?, ?)", row)
        if mode == "wal":
            connection.commit()
    if mode != "wal":  # SQLite spills a large transaction into the file before it is committed
        connection.execute("PRAGMA cache_size=1")
        connection.execute("UPDATE messages SET data = zeroblob(length(data))")
    killed = bag.with_name(bag.name + "_killed")
    killed.mkdir()
    for file in bag.iterdir():
        shutil.copyfile(file, killed / file.name)
    connection.close()
    return killed
