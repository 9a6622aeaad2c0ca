"""cv_bridge, what most nodes read images with, as the oracle for what we publish and decode."""

from __future__ import annotations

import numpy as np
import pytest
from cv_bridge import CvBridge
from std_msgs.msg import Header

from diffusion_perception_ros.inference.image_encodings import decode_image
from diffusion_perception_ros.ros.messages import image_message


RANDOM = np.random.default_rng(3)
PUBLISHED = {
    "rgb8": RANDOM.integers(0, 256, (48, 64, 3), np.uint8),
    "mono8": RANDOM.integers(0, 256, (48, 64), np.uint8),
    "mono16": RANDOM.integers(0, 65536, (48, 64), np.uint16),
    "32FC1": RANDOM.random((48, 64), np.float32),
    "32FC3": RANDOM.random((48, 64, 3), np.float32),
}


@pytest.mark.parametrize("encoding", list(PUBLISHED))
def test_cv_bridge_reads_what_we_publish(encoding: str) -> None:
    message = image_message(Header(frame_id="camera"), PUBLISHED[encoding])
    assert message.encoding == encoding
    np.testing.assert_array_equal(CvBridge().imgmsg_to_cv2(message), PUBLISHED[encoding])


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8"])
def test_we_read_what_cv_bridge_publishes(encoding: str) -> None:
    shape = {"rgba8": (48, 64, 4), "bgra8": (48, 64, 4), "mono8": (48, 64)}.get(encoding, (48, 64, 3))
    message = CvBridge().cv2_to_imgmsg(RANDOM.integers(0, 256, shape, np.uint8), encoding)
    ours = decode_image(
        message.data, message.encoding, message.width, message.height, message.step, message.is_bigendian
    )
    pixels = np.frombuffer(message.data, np.uint8).reshape(48, 64, -1)
    channels = {"bgr8": [2, 1, 0], "bgra8": [2, 1, 0], "mono8": [0, 0, 0]}.get(encoding, [0, 1, 2])
    np.testing.assert_array_equal(ours, pixels[..., channels])
