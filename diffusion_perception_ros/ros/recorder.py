"""Records topics to a rosbag2 bag (mcap) that `ros2 bag`, Foxglove and this package read.

It stops on SIGINT or SIGTERM, or when the disk is nearly full, finishes the bag and prints what it holds as a line of
JSON. Exit codes: 0 every topic was seen, 1 some were not or the disk was full, 2 nothing could be recorded; 3 and 4 as
in `running`.
"""

from __future__ import annotations


if __name__ == "__main__":
    from diffusion_perception_ros.ros.early_end import end_quietly

    end_quietly()

import contextlib
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import rclpy
from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosbags.interfaces import (
    Connection,
    Nodetype,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer, WriterError
from rosbags.rosbag2.enums import CompressionFormat, CompressionMode
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.ros.messages import message_type
from diffusion_perception_ros.ros.node_parameters import NodeParameters
from diffusion_perception_ros.ros.parameters import RecorderParameters
from diffusion_perception_ros.ros.running import run_node


GRACE = 30.0
"""Seconds after a signal for writing the rest of the bag and its index."""
QUEUE = 100
"""Messages that may wait per topic while the disk is busy."""


class Recorder(Node):
    """Subscribes to topics as they appear and appends their messages to a bag."""

    def __init__(self) -> None:
        super().__init__("recorder")
        self.parameters = NodeParameters(self, RecorderParameters).values
        if not self.parameters.output or not self.parameters.topics:
            raise InputError("parameters output and topics are needed: the new bag's folder and what to record")
        self.counts: dict[str, int] = {}
        self._awaited = list(self.parameters.topics)
        self._types = get_typestore(Stores.LATEST)
        self._bag = _open_bag(Path(self.parameters.output), self.parameters.compression)
        self._discovery = self.create_timer(0.1, self._subscribe_to_known)
        self.create_timer(1.0, self._check_disk)
        self.trouble = ""
        """Why nothing more is recorded, empty while all is well."""

    @property
    def missing(self) -> list[str]:
        """Topics that nobody has published yet."""
        return self._awaited

    def close(self) -> None:
        """Finishes the bag: writes its index and metadata."""
        try:
            self._bag.close()
        except (OSError, ValueError) as error:
            self._stop(f"its index cannot be written ({error}); bag_player and run read it without one")

    def _subscribe_to_known(self) -> None:
        """In the order of the list: whoever waits for a subscriber of the last topic gets all of them."""
        while self._awaited:
            topic = self._awaited[0]
            publishers = self.get_publishers_info_by_topic(self.resolve_topic_name(topic))
            if not publishers:
                return
            profiles = [info.qos_profile for info in publishers]
            self._subscribe(topic, publishers[0].topic_type, _matching(profiles))
            self._awaited.pop(0)
        self._discovery.cancel()

    def _subscribe(self, topic: str, kind: str, qos: QoSProfile) -> None:
        try:
            type_of_topic = message_type(kind)
            _register(self._types, kind)
        except InputError as error:
            self.get_logger().error(f"{topic} is not recorded: {error}")
            return
        name = self.resolve_topic_name(topic)
        connection = self._bag.add_connection(
            name, kind, typestore=self._types, offered_qos_profiles=[_stored_qos(qos)]
        )
        self.counts[name] = 0
        self.create_subscription(type_of_topic, name, lambda data: self._write(connection, data), qos, raw=True)

    def _write(self, connection: Connection, data: bytes) -> None:
        if self.trouble:
            return
        try:
            self._bag.write(connection, self.get_clock().now().nanoseconds, data)
        except (OSError, ValueError) as error:
            self._stop(f"it cannot be written any further: {error}")
        else:
            self.counts[connection.topic] += 1

    def _check_disk(self) -> None:
        """Ends in time to finish the bag, and to leave the rest of the robot room."""
        free = shutil.disk_usage(self.parameters.output).free
        if free < self.parameters.min_free_bytes:
            self._stop(f"only {free / 1e6:.0f} MB are free where it lies (min_free_bytes)")

    def _stop(self, reason: str) -> None:
        self.trouble = self.trouble or f"the bag {self.parameters.output} ends here: {reason}"


def _open_bag(path: Path, compression: str) -> Writer:
    try:
        bag = Writer(path, version=9, storage_plugin=StoragePlugin.MCAP)
        if compression == "zstd":
            bag.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        bag.open()
    except (WriterError, OSError) as error:
        raise InputError(f"the bag {path} cannot be written: {error}") from error
    return bag


def _matching(offered: list[QoSProfile]) -> QoSProfile:
    """Asks for no more than every publisher offers, so that none of them is missed."""
    reliable = all(profile.reliability == ReliabilityPolicy.RELIABLE for profile in offered)
    latched = all(profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for profile in offered)
    return QoSProfile(
        depth=QUEUE,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def _stored_qos(qos: QoSProfile) -> Qos:
    forever = QosTime(9223372036, 854775807)
    reliable, latched = (
        qos.reliability == ReliabilityPolicy.RELIABLE,
        qos.durability == DurabilityPolicy.TRANSIENT_LOCAL,
    )
    return Qos(
        QosHistory.KEEP_LAST,
        qos.depth,
        QosReliability.RELIABLE if reliable else QosReliability.BEST_EFFORT,
        QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        forever,
        forever,
        QosLiveliness.AUTOMATIC,
        forever,
        avoid_ros_namespace_conventions=False,
    )


def _register(types: Typestore, kind: str) -> None:
    """Adds a type, and what it is made of, from the .msg files of the installed package."""
    if kind in types.fielddefs:
        return
    package, _, name = kind.split("/")
    try:
        text = (Path(get_package_share_directory(package)) / "msg" / f"{name}.msg").read_text(encoding="utf-8")
    except (PackageNotFoundError, OSError) as error:
        raise InputError(f"the definition of {kind} is missing: {error}") from error
    definition = get_types_from_msg(text, kind)
    for _, description in definition[kind][1]:
        for part in _named_types(description):
            _register(types, part)
    types.register(definition)


def _named_types(description: Any) -> list[str]:
    """Message types that a rosbags field description refers to: (NAME, type) or (ARRAY | SEQUENCE, (element, n))."""
    kind, value = description
    if kind == Nodetype.NAME:
        return [value]
    return _named_types(value[0]) if kind in (Nodetype.ARRAY, Nodetype.SEQUENCE) else []


def record(node: Recorder) -> int:
    """Records until told to end, or until the topics are given up, and prints what was recorded; the exit code."""
    deadline = time.monotonic() + (node.parameters.wait_timeout or float("inf"))
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        while rclpy.ok() and not node.trouble and not (node.missing and time.monotonic() > deadline):
            rclpy.spin_once(node, timeout_sec=0.5)
    node.close()
    print(json.dumps({"bag": node.parameters.output, "recorded": node.counts, "missing": node.missing}), flush=True)
    if node.missing:
        print(f"recorder: nobody published {', '.join(node.missing)}", file=sys.stderr)
    if node.trouble:
        print(f"recorder: {node.trouble}", file=sys.stderr)
    return 1 if node.missing or node.trouble else 0


def main(args: list[str] | None = None) -> None:
    """Entry point of the executable."""
    run_node("recorder", Recorder, record, args, GRACE)


if __name__ == "__main__":
    main()
