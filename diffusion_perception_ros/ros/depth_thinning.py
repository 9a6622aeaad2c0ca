"""A sparse sensor out of a dense one: depth images of which only some pixels are played."""

from __future__ import annotations

import numpy as np
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Image

from diffusion_perception_ros.ros.messages import fill


PIXEL_SIZES = {"16UC1": 2, "32FC1": 4}
"""Bytes of a pixel of the encodings that depth comes in; 0 is a hole in both."""


def thinned(data: bytes, share: float, seed: int) -> bytes:
    """A serialised Image with this share of its pixels kept, if it is a depth image; others come back as they are.

    Args:
        data: CDR.
        share: Of the pixels, each with the same probability.
        seed: The same seed keeps the same pixels.
    """
    message = deserialize_message(data, Image)
    size = PIXEL_SIZES.get(message.encoding)
    if size is None or len(message.data) < message.height * message.step:
        return data
    rows = np.frombuffer(message.data, np.uint8)[: message.height * message.step].reshape(message.height, -1)
    kept = np.random.default_rng(seed).random((message.height, message.width)) < share
    pixels = np.where(np.repeat(kept, size, axis=1), rows[:, : message.width * size], np.uint8(0))
    sparse = Image(header=message.header, height=message.height, width=message.width, encoding=message.encoding)
    sparse.is_bigendian, sparse.step = message.is_bigendian, message.width * size
    fill(sparse.data, pixels)
    return bytes(serialize_message(sparse))
