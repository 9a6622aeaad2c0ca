"""Images of every encoding and transport, good and bad, sent to one running node."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from harness import RELIABLE, Process, Ros, compressed_image, image, pixels, rgb_image
from model_factory import LABELS, write_model
from recording_factory import encode_video
from sensor_msgs.msg import CompressedImage, Image

from diffusion_perception_ros.inference.image_encodings import COLOR_ENCODINGS


WIDTH, HEIGHT = 128, 96
TOPIC = "/camera/image_raw"
stamps = itertools.count(1000)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """One quadrant in the colour of each class of the test model."""
    rgb = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    for label, (row, column) in zip(LABELS, itertools.product((0, 1), (0, 1)), strict=True):
        top, left = row * HEIGHT // 2, column * WIDTH // 2
        rgb[top : top + HEIGHT // 2, left : left + WIDTH // 2] = label.color
    return rgb


class Camera:
    """Publishes images to the node under test and gets the masks it makes of them."""

    def __init__(self, ros: Ros) -> None:
        self.ros = ros
        self.raw = ros.node.create_publisher(Image, TOPIC, RELIABLE)
        self.compressed = ros.node.create_publisher(CompressedImage, f"{TOPIC}/compressed", RELIABLE)
        self.masks = ros.collect(Image, "/segmentation/mask")
        self.depths = ros.collect(Image, "/depth_relative/image")

    def send(self, message: Image | CompressedImage) -> None:
        publisher = self.raw if isinstance(message, Image) else self.compressed
        self.ros.wait_for(publisher.get_subscription_count, "the node subscribes")
        publisher.publish(message)

    def predict(self, message: Image | CompressedImage) -> tuple[np.ndarray, np.ndarray]:
        """Class ids and relative depth of an image."""
        stamp = message.header.stamp.sec
        self.ros.repeat_until(
            lambda: self.send(message),
            lambda: self.masks.at(stamp) and self.depths.at(stamp),
            f"prediction for {stamp}",
        )
        mask, depth = self.masks.at(stamp), self.depths.at(stamp)
        assert mask.header == depth.header == message.header
        return pixels(mask), pixels(depth)


@pytest.fixture(scope="module")
def node(ros: Ros, tmp_path_factory: pytest.TempPathFactory) -> Process:
    model = write_model(tmp_path_factory.mktemp("models") / "quadrants", depth="brightness")
    return ros.start(
        "perception_node",
        *("-p", f"model:={model}", "-p", "threads:=1", "-p", "diagnostics_period:=0.2", "-r", f"image:={TOPIC}"),
        ROS_PYTHON_CHECK_FIELDS="1",
    )


@pytest.fixture(scope="module")
def camera(ros: Ros, node: Process) -> Iterator[Camera]:
    camera = Camera(ros)
    ros.wait_for(camera.raw.get_subscription_count, "the node subscribes")
    # The node's publishers must know of our subscriptions before the first image, or it would be skipped.
    ros.status("outputs", "OK")
    ros.wait_for(lambda: "segmentation/mask" in ros.value("outputs", "Subscribed"), "the node sees its subscribers")
    yield camera
    assert node.stop() == 0


def encoded(rgb: np.ndarray, encoding: str) -> np.ndarray:
    """Rows of bytes; chroma and mosaics are exact because the quadrants are even."""
    height, width = rgb.shape[:2]
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    if encoding.startswith("bayer"):
        order = encoding.removeprefix("bayer_")[:4]
        mosaic = np.empty((height, width), np.uint8)
        for index, letter in enumerate(order):
            row, column = divmod(index, 2)
            mosaic[row::2, column::2] = rgb[row::2, column::2, "rgb".index(letter)]
        return mosaic if encoding.endswith("8") else (mosaic.astype("<u2") << 8).view(np.uint8)
    yuv = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420)
    luma, (u, v) = yuv[:height], yuv[height:].reshape(2, height // 2, width // 2)
    if encoding in ("nv12", "nv21"):
        return np.vstack([luma, np.dstack([u, v] if encoding == "nv12" else [v, u]).reshape(height // 2, width)])
    if encoding in ("yuv422", "uyvy", "yuv422_yuy2", "yuyv"):
        u, v = u.repeat(2, axis=0), v.repeat(2, axis=0)
        first, second = luma[:, ::2], luma[:, 1::2]
        parts = [u, first, v, second] if encoding in ("yuv422", "uyvy") else [first, u, second, v]
        return np.dstack(parts).reshape(height, -1)
    rows = {
        "rgb8": rgb,
        "bgr8": rgb[..., ::-1],
        "8UC3": rgb[..., ::-1],
        "rgba8": np.dstack([rgb, grey]),
        "bgra8": np.dstack([rgb[..., ::-1], grey]),
        "mono8": grey,
        "8UC1": grey,
        "mono16": (grey.astype("<u2") << 8).view(np.uint8),
        "16UC1": (grey.astype("<u2") << 8).view(np.uint8),
    }[encoding]
    return np.ascontiguousarray(rows).reshape(height, -1)


def assert_quadrants(mask: np.ndarray) -> None:
    """The middle of every quadrant has its class."""
    height, width = mask.shape
    corners = [(height // 4, width // 4), (height // 4, width * 3 // 4)]
    corners += [(height * 3 // 4, width // 4), (height * 3 // 4, width * 3 // 4)]
    assert [mask[corner] for corner in corners] == [label.id for label in LABELS]


@pytest.mark.parametrize("encoding", COLOR_ENCODINGS)
def test_every_encoding(camera: Camera, picture: np.ndarray, encoding: str) -> None:
    rows = np.pad(encoded(picture, encoding), ((0, 0), (0, 6)), constant_values=99)
    mask, depth = camera.predict(image(rows, encoding, WIDTH, next(stamps)))
    assert mask.shape == depth.shape == (HEIGHT, WIDTH)
    if encoding in ("mono8", "8UC1", "mono16", "16UC1"):
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) / 255
        assert depth[HEIGHT // 4, WIDTH * 3 // 4] == pytest.approx(grey[HEIGHT // 4, WIDTH * 3 // 4], abs=0.01)
    else:
        assert_quadrants(mask)


@pytest.mark.parametrize("encoding", ["mono16", "bayer_grbg16"])
def test_big_endian(camera: Camera, picture: np.ndarray, encoding: str) -> None:
    rows = encoded(picture, encoding)
    little = camera.predict(image(rows, encoding, WIDTH, next(stamps)))
    big = camera.predict(image(rows.view("<u2").byteswap().view(np.uint8), encoding, WIDTH, next(stamps), 1))
    assert np.array_equal(little[0], big[0])
    assert np.array_equal(little[1], big[1])


def test_size_and_encoding_change_mid_stream(camera: Camera, picture: np.ndarray, node: Process) -> None:
    for height, width in ((48, 64), (480, 640), (97, 33)):
        resized = cv2.resize(picture, (width, height), interpolation=cv2.INTER_NEAREST)
        mask, _ = camera.predict(rgb_image(resized, next(stamps)))
        assert mask.shape == (height, width)
    assert_quadrants(camera.predict(image(encoded(picture, "bgr8"), "bgr8", WIDTH, next(stamps)))[0])
    assert "images changed from 64x48 rgb8 to 640x480 rgb8" in node.log
    assert "to 128x96 bgr8" in node.log


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": 0, "height": 0, "step": 0}, "its size is 0x0"),
        ({"step": WIDTH * 3 - 1}, f"step {WIDTH * 3 - 1} is shorter than a row of {WIDTH} pixels"),
        ({"height": HEIGHT + 1}, f"fewer than {HEIGHT + 1} rows"),
        ({"encoding": "rgb565"}, "'rgb565' is unknown"),
        ({"width": 10_000, "height": 10_000, "step": 30_000}, "10000x10000 is larger than"),
        ({"encoding": "yuyv", "width": WIDTH - 1}, "must be even"),
    ],
)
def test_bad_images_are_reported_and_survived(
    camera: Camera, picture: np.ndarray, node: Process, change: dict, words: str
) -> None:
    stamp = next(stamps)
    bad = rgb_image(picture, stamp)
    for name, value in change.items():
        setattr(bad, name, value)
    camera.send(bad)
    status = camera.ros.status("images", words)
    assert status.level == b"\x02"
    assert f"image {stamp}.000000000 of 'camera': " in node.log
    assert_quadrants(camera.predict(rgb_image(picture, next(stamps)))[0])


def test_compressed_transport(camera: Camera, picture: np.ndarray, node: Process) -> None:
    ros = camera.ros
    assert ros.change_state("deactivate")
    assert ros.change_state("cleanup")
    assert ros.set_parameters(image_transport="compressed")[0].successful
    assert ros.change_state("configure")
    assert ros.change_state("activate")
    ros.wait_for(lambda: "segmentation/mask" in ros.value("outputs", "Subscribed"), "the node sees its subscribers")
    bgr = np.ascontiguousarray(picture[..., ::-1])
    jpeg, png = (cv2.imencode(extension, bgr)[1].tobytes() for extension in (".jpg", ".png"))
    for data, form in ((jpeg, "jpeg"), (jpeg, "rgb8; jpeg compressed bgr8"), (png, "bgr8; png compressed bgr8")):
        assert_quadrants(camera.predict(compressed_image(data, form, next(stamps)))[0])
    camera.send(compressed_image(jpeg[: len(jpeg) // 2], "jpeg", next(stamps)))
    assert ros.status("images", f"cut off after {len(jpeg) // 2} bytes").level == b"\x02"
    camera.send(compressed_image(b"not a picture", "jpeg", next(stamps)))
    ros.status("images", "neither JPEG nor PNG")
    assert_quadrants(camera.predict(compressed_image(png, "png", next(stamps)))[0])
    packets = encode_video([picture] * 6, "libx264", gop=3)
    camera.send(compressed_image(packets[1], "h264", next(stamps)))
    ros.status("images", "entered at its next key frame")
    for packet in packets:
        assert_quadrants(camera.predict(compressed_image(packet, "h264", next(stamps)))[0])
    assert node.is_running
