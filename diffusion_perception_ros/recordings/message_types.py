"""Bytes of a message to its fields, by the definition in the recording or by the one that everybody has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rosbags.convert.converter import migrate_bytes
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.recordings.storage import READABLE_ENCODINGS, ROS1, Channel
from diffusion_perception_ros.recordings.type_names import ros2_name


IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
FFMPEG_PACKET = "ffmpeg_image_transport_msgs/msg/FFMPEGPacket"
FOXGLOVE_VIDEO = "foxglove_msgs/msg/CompressedVideo"
FOXGLOVE_IMAGE = "foxglove_msgs/msg/CompressedImage"
_FOXGLOVE_FIELDS = "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n"
EXTRA_TYPES = {
    FFMPEG_PACKET: (
        "std_msgs/Header header\nint32 width\nint32 height\nstring encoding\nuint64 pts\nuint8 flags\n"
        "bool is_bigendian\nuint8[] data\n"
    ),
    FOXGLOVE_VIDEO: _FOXGLOVE_FIELDS,
    FOXGLOVE_IMAGE: _FOXGLOVE_FIELDS,
}
"""Types of images that rosbags does not know, as their packages publish them."""

Converter = Callable[[bytes], bytes]


class MessageTypes:
    """Knows the types of one recording; every channel has its own, so that one bad definition costs that channel."""

    def __init__(self) -> None:
        self._known = get_typestore(Stores.LATEST)
        for name, text in EXTRA_TYPES.items():
            self._known.register(get_types_from_msg(text, name))
        self._stores: dict[Channel, Typestore] = {}

    def problem(self, channel: Channel) -> str:
        """Why nothing can be made of a channel's bytes; empty if they are CDR, or can become it."""
        if not channel.type:
            return f"has no schema, so that the type of its {channel.encoding or 'unnamed'} messages is not known"
        if channel.encoding not in READABLE_ENCODINGS:
            return f"has the encoding '{channel.encoding}', which is not read (cdr and ros1 are)"
        if channel.encoding == ROS1:
            if channel.type not in self._known.fielddefs:
                definition = "no definition of" if not channel.definition.strip() else "messages of"
                return f"has {definition} its type {channel.type}, which ROS 2 does not know"
            if not channel.definition.strip() and channel.type not in (IMAGE, COMPRESSED, CAMERA_INFO):
                return f"has no definition of its type {channel.type}"
        return ""

    def to_cdr(self, channel: Channel) -> Converter:
        """What makes CDR of ROS 2 of a channel's bytes.

        Raises:
            InputError: `problem`, or its definition cannot be used.
        """
        if problem := self.problem(channel):
            raise InputError(f"{channel.topic} {problem}")
        if channel.encoding != ROS1:
            return lambda data: data
        source = self._ros1_store(channel)
        name = next((name for name in source.fielddefs if ros2_name(name) == channel.type), channel.type)
        cache: dict[str, object] = {}

        def convert(data: bytes) -> bytes:
            return bytes(
                migrate_bytes(source, self._known, name, channel.type, cache, data, src_is2=False, dst_is2=True)
            )

        return convert

    def deserialise(self, channel: Channel, cdr: bytes) -> Any:
        """Fields by attribute, with arrays of NumPy.

        Raises:
            InputError: there is no definition of the type.
            Exception: of any kind, where the bytes are not such a message.
        """
        return self._store(channel).deserialize_cdr(cdr, channel.type)

    def _store(self, channel: Channel) -> Typestore:
        if channel.type in self._known.fielddefs:
            return self._known
        if channel not in self._stores:
            if not channel.definition.strip():
                raise InputError(f"{channel.topic} has no definition of its type {channel.type}")
            store = get_typestore(Stores.EMPTY)
            parse = get_types_from_idl if channel.is_idl else _types_from_msg(channel.type)
            self._stores[channel] = _registered(store, parse, channel)
        return self._stores[channel]

    def _ros1_store(self, channel: Channel) -> Typestore:
        if channel not in self._stores:
            if channel.definition.strip():
                parse = _types_from_msg(channel.type)
                self._stores[channel] = _registered(get_typestore(Stores.EMPTY), parse, channel)
            else:
                self._stores[channel] = get_typestore(Stores.ROS1_NOETIC)
        return self._stores[channel]


def _types_from_msg(name: str) -> Callable[[str], Any]:
    return lambda text: get_types_from_msg(text, name)


def _registered(store: Typestore, parse: Callable[[str], Any], channel: Channel) -> Typestore:
    try:
        store.register(parse(channel.definition))
    except Exception as error:  # the parser raises anything when it meets damaged text
        raise InputError(f"{channel.topic} has a definition of {channel.type} that cannot be read: {error}") from error
    return store
