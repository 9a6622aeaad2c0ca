"""The messages part of `diffusion-perception bench`: images to messages and back, against cv_bridge."""

from __future__ import annotations

import array
from typing import Any

import numpy as np

from diffusion_perception_ros.cli.benchmarks.comparison import HEIGHT, WIDTH, Comparison, bench_picture, comparison_of


def decoding(seconds: float) -> list[Comparison]:
    """Image messages to RGB: this package against cv_bridge."""
    from cv_bridge import CvBridge
    from sensor_msgs.msg import Image

    from diffusion_perception_ros.inference.image_messages import color_of

    bridge = CvBridge()
    comparisons = []
    for encoding, channels, kind in (("rgb8", 3, np.uint8), ("bgr8", 3, np.uint8), ("mono16", 1, np.uint16)):
        pixels = np.ascontiguousarray(bench_picture()[..., :channels]).astype(kind)
        message = Image(height=HEIGHT, width=WIDTH, encoding=encoding, step=WIDTH * channels * pixels.itemsize)
        message.data.frombytes(pixels.tobytes())

        def ours(message: Any = message) -> object:
            return color_of(message)

        def theirs(message: Any = message) -> object:
            return bridge.imgmsg_to_cv2(message, "rgb8")

        comparisons.append(
            comparison_of(seconds, f"{encoding} message to RGB", {"this package": ours, "cv_bridge": theirs})
        )
    return comparisons


def encoding(seconds: float) -> list[Comparison]:
    """Arrays to image messages, and the ways to fill a message's data."""
    from cv_bridge import CvBridge
    from sensor_msgs.msg import Image
    from std_msgs.msg import Header

    from diffusion_perception_ros.ros.messages import image_message

    bridge, header = CvBridge(), Header(frame_id="camera")
    rgb, depth = bench_picture(), np.random.default_rng(0).uniform(0, 5, (HEIGHT, WIDTH)).astype(np.float32)
    data = rgb.tobytes()

    def fill(value: object) -> object:
        message = Image()
        message.data = value
        return message

    def frombytes() -> object:
        message = Image()
        message.data.frombytes(rgb.reshape(-1))
        return message

    return [
        comparison_of(
            seconds,
            "RGB to rgb8 message",
            {
                "this package": lambda: image_message(header, rgb),
                "cv_bridge": lambda: bridge.cv2_to_imgmsg(rgb, "rgb8"),
            },
        ),
        comparison_of(
            seconds,
            "depth to 32FC1 message",
            {
                "this package": lambda: image_message(header, depth),
                "cv_bridge": lambda: bridge.cv2_to_imgmsg(depth, "32FC1"),
            },
        ),
        comparison_of(
            seconds,
            "filling data of a message",
            {
                "data.frombytes(ndarray)": frombytes,
                "data = array.array": lambda: fill(array.array("B", data)),
                "data = bytes": lambda: fill(data),
                "data = ndarray": lambda: fill(rgb.reshape(-1)),
            },
        ),
    ]
