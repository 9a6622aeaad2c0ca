"""A dense depth topic played as a sparse sensor's."""

from __future__ import annotations

import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Image

from diffusion_perception_ros.ros.depth_thinning import thinned


def message(pixels: np.ndarray, encoding: str, padding: int = 0) -> Image:
    """An image whose rows end in some bytes that belong to no pixel."""
    height, width = pixels.shape
    rows = pixels.view(np.uint8).reshape(height, -1)
    data = np.pad(rows, ((0, 0), (0, padding)), constant_values=255)
    image = Image(height=height, width=width, encoding=encoding, step=data.shape[1])
    image.header.frame_id = "camera"
    image.data.frombytes(data.tobytes())
    return image


@pytest.mark.parametrize(("encoding", "dtype"), [("16UC1", np.uint16), ("32FC1", np.float32)])
@pytest.mark.parametrize("padding", [0, 4])
def test_a_share_of_the_pixels_is_left(encoding: str, dtype: type, padding: int) -> None:
    pixels = np.arange(1, 120 * 160 + 1).reshape(120, 160).astype(dtype)
    data = bytes(serialize_message(message(pixels, encoding, padding)))
    sparse = deserialize_message(thinned(data, 0.1, 7), Image)
    assert (sparse.height, sparse.width, sparse.encoding, sparse.header.frame_id) == (120, 160, encoding, "camera")
    values = np.frombuffer(sparse.data, dtype).reshape(120, 160)
    kept = values != 0
    assert kept.mean() == pytest.approx(0.1, rel=0.1)
    np.testing.assert_array_equal(values[kept], pixels[kept])
    same, other = (deserialize_message(thinned(data, 0.1, seed), Image) for seed in (7, 8))
    assert same.data == sparse.data != other.data


def test_colour_and_damaged_images_stay_as_they_are() -> None:
    colour = bytes(serialize_message(message(np.full((4, 6), 200, np.uint8), "mono8")))
    assert thinned(colour, 0.1, 0) == colour
    cut = message(np.full((4, 6), 200, np.uint16), "16UC1")
    cut.height = 400
    data = bytes(serialize_message(cut))
    assert thinned(data, 0.1, 0) == data
