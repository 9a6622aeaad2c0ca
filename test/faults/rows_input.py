"""Faults of cameras, their messages and their clocks."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from harness import LATCHED, RELIABLE, camera_info, compressed_image, header, rgb_image
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image

from faults.bench import HEIGHT, INFO_TOPIC, RGB, TOPIC, WIDTH, Bench
from faults.campaign import row
from faults.messages import COMPRESSED, IMAGES, INFOS, changed_image, mutated, png_bomb


COMPRESSED_NODE = {"model": "plain", "image_transport": "compressed"}
METRIC = {"model": "metric"}


@row("uncalibrated camera_info, then an unknown encoding", "said; the next image is predicted", quick=True)
def uncalibrated_then_unknown(bench: Bench) -> str:
    bench.infos.publish(INFOS["uncalibrated"](bench.stamp()))
    bench.send()
    bench.images.publish(IMAGES["unknown encoding"](bench.stamp()))
    return bench.said("images", "rgb7")


@row("a bad image, then a subscriber of incompatible QoS", "said; the node goes on", quick=True)
def bad_image_then_qos(bench: Bench) -> str:
    bench.images.publish(IMAGES["short data"](bench.stamp()))
    said = bench.said("images", "data")
    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    other = bench.ros.node.create_publisher(Image, TOPIC, best_effort)
    readers = [bench.ros.node.create_subscription(Image, "/depth_relative/image", print, LATCHED)]
    bench.recover()
    for reader in readers:
        bench.ros.node.destroy_subscription(reader)
    bench.ros.node.destroy_publisher(other)
    return said


def _pairs(kinds: dict[str, Any], most: int) -> list[tuple[str, str]]:
    """Ordered pairs of kinds, evenly chosen if they are too many."""
    pairs = list(itertools.product(kinds, repeat=2))
    return pairs[:: max(1, len(pairs) // most)]


def _send_pairs(bench: Bench, kinds: dict[str, Any], publisher: Any, most: int) -> str:
    pairs = _pairs(kinds, most)
    for number, pair in enumerate(pairs):
        for kind in pair:
            publisher.publish(kinds[kind](bench.stamp()))
        bench.ros.pause(0.002)
        if number % 20 == 0:
            bench.recover()
    return f"{len(pairs)} ordered pairs of {len(kinds)} kinds of bad messages, good images between them came back"


@row("bad images, every kind after every other (some pairs)", "each costs itself only", quick=True)
def some_bad_images(bench: Bench) -> str:
    return _send_pairs(bench, IMAGES, bench.images, 60)


@row("bad images, every kind after every other", "each costs itself only")
def bad_images(bench: Bench) -> str:
    return _send_pairs(bench, IMAGES, bench.images, 10_000)


@row("bad camera_info, every kind after every other", "each costs itself only", METRIC, quick=True)
def bad_infos(bench: Bench) -> str:
    return _send_pairs(bench, INFOS, bench.infos, 10_000)


@row("bad compressed images, every kind after every other", "refused from the header", COMPRESSED_NODE, quick=True)
def bad_compressed(bench: Bench) -> str:
    kinds = {name: _constant(message(0.0)) for name, message in COMPRESSED.items()}
    return _send_pairs(bench, kinds, bench.compressed, 40)


@row("a PNG of 190 kB that becomes 190 MB", "predicted or refused; its memory is given back", COMPRESSED_NODE)
def png_of_many_pixels(bench: Bench) -> str:
    bomb = compressed_image(png_bomb(8000, 8000), "png", 0.0)
    for _ in range(5):
        bomb.header = header(bench.stamp())
        bench.compressed.publish(bomb)
        bench.recover()
    return f"five of them, {len(bomb.data) // 1000} kB each"


def _constant(message: Any) -> Any:
    """The same message with the stamp that is asked for: a bomb is made once."""

    def with_stamp(stamp: float) -> Any:
        message.header = header(stamp)
        return message

    return with_stamp


@row("10 000 messages of each topic, good ones and mutated bytes of good ones", "each costs itself only", METRIC)
def ten_thousand(bench: Bench) -> str:
    return _mutate(bench, 10_000)


@row("mutated bytes of messages (a few hundred)", "each costs itself only", METRIC, quick=True)
def mutated_bytes(bench: Bench) -> str:
    return _mutate(bench, 300)


def _mutate(bench: Bench, count: int) -> str:
    rng = np.random.default_rng(2)
    for number in range(count):
        stamp = bench.stamp()
        info, image = camera_info(stamp, WIDTH, HEIGHT), rgb_image(RGB, stamp)
        for publisher, message in ((bench.infos, info), (bench.images, image)):
            publisher.publish(mutated(serialize_message(message), rng) if number % 2 else message)
        if number % 10 == 0:
            bench.ros.pause(0.005)
        if number % 500 == 0:
            bench.recover()
    return f"{count} messages on each of {TOPIC} and {INFO_TOPIC}, every second one damaged"


@row("300 images of 300 unknown encodings", "the log stays short", quick=True)
def distinct_encodings(bench: Bench) -> str:
    before = len(bench.node.log)
    for number in range(300):
        bench.images.publish(changed_image(bench.stamp(), encoding=f"x{number}"))
        bench.ros.pause(0.005)
    return f"{len(bench.node.log) - before} bytes of log; {bench.said('images', 'x29')}"


@row("one row of 100 000 pixels", "bounded by the model's input, no stall", memory_mb=80.0, quick=True)
def long_row(bench: Bench) -> str:
    for name in ("one long row", "one long column"):
        bench.images.publish(IMAGES[name](bench.stamp()))
        bench.ros.pause(0.3)
    return "predicted or refused at once"


@row("the camera stops for a while", "said, and back with the first image")
def camera_stops(bench: Bench) -> str:
    bench.ros.forget_diagnostics()
    said = bench.said("images", "waiting for images on")
    bench.recover()
    return said


@row("the camera's node ends and another takes its place", "predicted from its first images")
def camera_restarts(bench: Bench) -> str:
    node = bench.ros.node
    for name, kind, topic in (("images", Image, TOPIC), ("infos", CameraInfo, INFO_TOPIC)):
        node.destroy_publisher(getattr(bench, name))
        setattr(bench, name, node.create_publisher(kind, topic, RELIABLE))
    return "another publisher"


@row("size, encoding and intrinsics change from image to image", "each image by its own", METRIC, quick=True)
def everything_changes(bench: Bench) -> str:
    rng = np.random.default_rng(3)
    shapes = [(48, 64), (64, 48), (31, 77), (120, 160), (64, 96)]
    for number in range(40):
        height, width = shapes[number % len(shapes)]
        bench.send(rng.integers(0, 256, (height, width, 3), np.uint8), focal=float(rng.uniform(20, 200)))
        bench.ros.pause(0.02)
    encodings = ["bgr8", "mono8", "rgba8", "bgra8", "bayer_rggb8"]
    for encoding in encodings:
        channels = {"bgr8": 3, "rgba8": 4, "bgra8": 4}.get(encoding, 1)
        step = channels * WIDTH
        message = changed_image(bench.stamp(), encoding=encoding, step=step)
        del message.data[HEIGHT * step :]
        message.data.extend(bytes(HEIGHT * step - len(message.data)))
        bench.images.publish(message)
        bench.ros.pause(0.02)
    return f"{len(shapes)} sizes, {len(encodings) + 1} encodings, 40 focal lengths"


@row("1 000 images per second", "the newest are predicted, the others counted as dropped", quick=True)
def thousand_hertz(bench: Bench) -> str:
    before = len(bench.depths.messages)
    for _ in range(300):
        bench.images.publish(rgb_image(RGB, bench.stamp()))
        bench.ros.pause(0.0005)
    return f"{len(bench.depths.messages) - before} maps of 300 images"


@row("two publishers 2 ms apart", "said once; the log stays short", quick=True)
def two_publishers(bench: Bench) -> str:
    before = len(bench.node.log)
    other = bench.ros.node.create_publisher(Image, TOPIC, RELIABLE)
    for _ in range(150):
        stamp = bench.stamp()
        bench.images.publish(rgb_image(RGB, stamp))
        other.publish(rgb_image(RGB, stamp - 1 / 512))
        bench.ros.pause(0.005)
    said = bench.said("images", "more than one node publishes")
    lines = bench.node.log[before:].count("\n")
    bench.ros.node.destroy_publisher(other)
    assert lines <= 40, f"{lines} lines of log"
    return f"{lines} lines of log; {said}"


@row("stamps: zero, equal, a day ahead, a day back, the year 2106", "each image is predicted or counted", quick=True)
def strange_stamps(bench: Bench) -> str:
    now = bench.stamp()
    for stamp in (0.0, 0.0, now, now, now, now + 86400, now - 86400, 2.0**32 - 1, 2.0**31 - 1, 0.0, now):
        message = rgb_image(RGB, 0.0)
        message.header.stamp.sec = int(min(stamp, 2**31 - 1))
        message.header.stamp.nanosec = 2**32 - 1 if stamp > 2**31 else 0
        bench.images.publish(message)
        bench.ros.pause(0.05)
    return "eleven images out of order"


@row("camera_info before an image whose stamp jumps back", "nine of ten such pairs give a cloud", METRIC)
def infos_before_jumps(bench: Bench) -> str:
    base, found = bench.stamp() + 1000.0, 0
    for number in range(10):
        stamp = base - 50.0 * number
        bench.infos.publish(camera_info(stamp, WIDTH, HEIGHT))
        bench.ros.pause(0.05)
        for _ in range(3):
            bench.images.publish(rgb_image(RGB, stamp))
            bench.ros.pause(0.2)
        found += bench.clouds.at(stamp) is not None
    assert found >= 8, f"{found} of 10 jumps gave a cloud"
    return f"{found} of 10 jumps gave a cloud"


@row("simulated time starts again", "predicted on", {"model": "plain", "use_sim_time": True})
def sim_time(bench: Bench) -> str:
    clock = bench.ros.node.create_publisher(Clock, "/clock", RELIABLE)
    for start in (5000.0, 10.0, 1e9, 0.0):
        for step in range(10):
            clock.publish(Clock(clock=header(start + step / 64).stamp))
            bench.images.publish(rgb_image(RGB, start + step / 64))
            bench.ros.pause(0.02)
    bench.ros.node.destroy_publisher(clock)
    return "four clocks: 5 000 s, 10 s, 1e9 s, 0 s"
