"""Plays a bag or a folder of pictures as topics, with the stamps it was recorded with.

At the end it prints what it did as one line of JSON. Exit codes: 0 all played, 1 played except for what could not be
read (named in the log), 2 nothing could be played.
"""

from __future__ import annotations


if __name__ == "__main__":
    from diffusion_perception_ros.ros.early_end import end_quietly

    end_quietly()

import contextlib
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import rclpy
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.ros.bag_source import BagMessage, BagSource, open_source
from diffusion_perception_ros.ros.depth_thinning import thinned
from diffusion_perception_ros.ros.messages import message_type
from diffusion_perception_ros.ros.node_parameters import NodeParameters
from diffusion_perception_ros.ros.parameters import PlayerParameters
from diffusion_perception_ros.ros.running import run_node


IMAGE = "sensor_msgs/msg/Image"
SETTLE_TIME = 0.5
"""Seconds that DDS gets for discovery before the first and for delivery after the last message."""


class BagPlayer(Node):
    """Publishes the messages of a source at their pace."""

    def __init__(self) -> None:
        super().__init__("bag_player")
        self.parameters = NodeParameters(self, PlayerParameters).values
        self.published: Counter[str] = Counter()
        self.skipped: dict[str, str] = {}
        self.loops = 0
        self._outputs: dict[str, Publisher[Any]] = {}
        self._spinner = SingleThreadedExecutor()
        self._spinner.add_node(self)
        self._clock_output = self.create_publisher(Clock, "/clock", 10) if self.parameters.clock else None

    def play(self, source: BagSource) -> None:
        """Plays to the end, or for ever with `loop`.

        Raises:
            InputError: nobody subscribed to the topics of `wait_for` in time, or no topic can be played.
        """
        self._advertise(source)
        self._wait_for_subscribers()
        while True:
            if not self._play_once(source):
                raise InputError(f"there is nothing to play after {self.parameters.start_offset:g} s of the recording")
            self.loops += 1
            if not self.parameters.loop:
                break
        self._finish()

    def _advertise(self, source: BagSource) -> None:
        wanted = set(self.parameters.topics or source.topics)
        for topic in sorted(source.left_out):
            if not self.parameters.topics or topic in wanted:
                self.skipped[topic] = f"it {source.left_out[topic]}"
                self.get_logger().warning(f"{topic} is not played: {self.skipped[topic]}")
        wanted -= source.left_out.keys()
        missing = sorted(wanted - set(source.topics))
        if missing:
            raise InputError(f"the recording has no topic {', '.join(missing)}; it has {', '.join(source.topics)}")
        for topic in sorted(wanted):
            try:
                kind = message_type(source.topics[topic])
            except InputError as error:
                self.skipped[topic] = str(error)
                self.get_logger().warning(f"{topic} is not played: {self.skipped[topic]}")
                continue
            self._outputs[topic] = self.create_publisher(kind, topic, _qos(topic in source.latched))
        if not self._outputs:
            raise InputError("none of the recording's topics can be played")

    def _wait_for_subscribers(self) -> None:
        names = {self.resolve_topic_name(topic): publisher for topic, publisher in self._outputs.items()}
        awaited = [self.resolve_topic_name(topic) for topic in self.parameters.wait_for]
        unknown = [topic for topic in awaited if topic not in names]
        if unknown:
            raise InputError(f"wait_for names {', '.join(unknown)}, which is not played; played: {', '.join(names)}")
        deadline = time.monotonic() + self.parameters.wait_timeout
        needed = self.parameters.wait_for_subscribers
        while waiting := [topic for topic in awaited if names[topic].get_subscription_count() < needed]:
            if time.monotonic() > deadline:
                raise InputError(
                    f"fewer than {needed} subscribers on {', '.join(waiting)} after {self.parameters.wait_timeout:g} s"
                )
            self._spin(0.05)
        # Endpoints match one by one: give those that `wait_for` does not name the same chance.
        self._spin(SETTLE_TIME)

    def _play_once(self, source: BagSource) -> int:
        """Number of messages published."""
        before = self.published.total()
        offset = round(self.parameters.start_offset * 1e9)
        begin: int | None = None
        started = 0.0
        for message in source.messages():
            if message.topic not in self._outputs:
                continue
            if not rclpy.ok():
                raise ExternalShutdownException
            if begin is None:
                begin = message.stamp + offset
                started = time.monotonic()
            if message.stamp >= begin:
                self._sleep_until(message.stamp, begin, started)
            elif message.topic not in source.latched:
                continue
            self._outputs[message.topic].publish(self._sparse(source, message))
            self.published[message.topic] += 1
        return self.published.total() - before

    def _sparse(self, source: BagSource, message: BagMessage) -> bytes:
        """What is published of a message: of depth images only `depth_share` of the pixels."""
        if self.parameters.depth_share == 1 or source.topics[message.topic] != IMAGE:
            return message.data
        return thinned(message.data, self.parameters.depth_share, message.stamp)

    def _sleep_until(self, stamp: int, begin: int, started: float) -> None:
        """Waits until it is `stamp` in the recording, serving callbacks and publishing the clock meanwhile."""
        due = started + (stamp - begin) / 1e9 / self.parameters.rate
        while (remaining := due - time.monotonic()) > 0:
            self._publish_clock(begin + round((time.monotonic() - started) * 1e9 * self.parameters.rate))
            self._spinner.spin_once(timeout_sec=min(remaining, 1 / self.parameters.clock_rate))
        self._publish_clock(stamp)

    def _publish_clock(self, stamp: int) -> None:
        if self._clock_output is not None:
            clock = Clock()
            clock.clock.sec, clock.clock.nanosec = divmod(stamp, 1_000_000_000)
            self._clock_output.publish(clock)

    def _finish(self) -> None:
        """Keeps the process until readers have taken the last messages: they go away with it."""
        for publisher in self._outputs.values():
            publisher.wait_for_all_acked(Duration(seconds=5))
        self._spin(SETTLE_TIME)  # best-effort readers acknowledge nothing

    def _spin(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (remaining := deadline - time.monotonic()) > 0:
            self._spinner.spin_once(timeout_sec=remaining)

    def summary(self, source: BagSource) -> dict[str, Any]:
        """What was done, for scripts."""
        return {
            "bag": self.parameters.bag,
            "published": {topic: self.published[topic] for topic in sorted(self._outputs)},
            "skipped": self.skipped,
            "loops": self.loops,
            "notes": source.notes,
            "damage": source.damage,
        }


def _qos(latched: bool) -> QoSProfile:
    """Reliable serves best-effort readers too; 10 deep, because images and their camera_info come in bursts."""
    durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
    return QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=durability)


def play_to_end(node: BagPlayer) -> int:
    """Plays the bag of the parameters and prints what was played; the exit code."""
    settings = node.parameters
    if not settings.bag:
        raise InputError("parameter bag is empty: give the bag to play with -p bag:=PATH")
    with open_source(Path(settings.bag), settings.picture_rate, settings.picture_frame_id) as source:
        with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
            node.play(source)
        print(json.dumps(node.summary(source)), flush=True)
        for sentence in [*source.notes, *source.damage]:
            print(f"bag_player: {sentence}", file=sys.stderr)
        return 1 if source.damage else 0


def main(args: list[str] | None = None) -> None:
    """Entry point of the executable."""
    run_node("bag_player", BagPlayer, play_to_end, args)


if __name__ == "__main__":
    main()
