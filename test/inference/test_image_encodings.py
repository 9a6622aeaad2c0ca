"""Every image encoding decodes to the colours that went in, and every malformed image is refused with a reason."""

from __future__ import annotations

import array

import cv2
import numpy as np
import pytest

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.image_encodings import (
    COLOR_ENCODINGS,
    decode_compressed,
    decode_depth,
    decode_image,
)


WIDTH, HEIGHT = 32, 16
LOSSY = ("yuv", "uyvy", "yuyv", "nv", "bayer")


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """Smooth colours: chroma subsampling and mosaics keep them nearly exact, channel mix-ups do not."""
    x, y = np.meshgrid(np.linspace(0, 1, WIDTH), np.linspace(0, 1, HEIGHT))
    return np.stack([200 - 120 * x, 40 + 60 * y, 30 + 190 * x * y], axis=-1).astype(np.uint8)


def encode(rgb: np.ndarray, encoding: str) -> np.ndarray:
    """The pixels of `rgb` as rows of bytes (rows, row bytes) in a ROS encoding, little endian."""
    height, width = rgb.shape[:2]
    if encoding in ("rgb8", "bgr8", "8UC3"):
        return (rgb if encoding == "rgb8" else rgb[..., ::-1]).reshape(height, -1)
    if encoding in ("rgba8", "bgra8"):
        color = rgb if encoding == "rgba8" else rgb[..., ::-1]
        return np.concatenate([color, np.full((height, width, 1), 77, np.uint8)], axis=-1).reshape(height, -1)
    if encoding in ("mono8", "8UC1"):
        return rgb[..., 0].copy()
    if encoding in ("mono16", "16UC1"):
        return (rgb[..., 0].astype("<u2") * 256 + 99).view(np.uint8)
    if encoding.startswith("bayer"):
        offsets = {letter: [] for letter in "rgb"}
        for index, letter in enumerate(encoding.removeprefix("bayer_")[:4]):
            offsets[letter].append(divmod(index, 2))
        mosaic = np.zeros((height, width), np.uint8)
        for channel, letter in enumerate("rgb"):
            for row, column in offsets[letter]:
                mosaic[row::2, column::2] = rgb[row::2, column::2, channel]
        return mosaic if encoding.endswith("8") else (mosaic.astype("<u2") * 256).view(np.uint8)
    i420 = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420)
    luma = i420[:height]
    u, v = i420[height:].reshape(2, height // 2, width // 2)
    if encoding in ("nv12", "nv21"):
        chroma = np.stack((u, v) if encoding == "nv12" else (v, u), axis=-1).reshape(height // 2, width)
        return np.concatenate([luma, chroma])
    u, v = np.repeat(u, 2, axis=0), np.repeat(v, 2, axis=0)
    even, odd = luma[:, ::2], luma[:, 1::2]
    order = (u, even, v, odd) if encoding in ("yuv422", "uyvy") else (even, u, odd, v)
    return np.stack(order, axis=-1).reshape(height, -1)


def expected(rgb: np.ndarray, encoding: str) -> np.ndarray:
    grey = encoding in ("mono8", "8UC1", "mono16", "16UC1")
    return np.repeat(rgb[..., :1], 3, axis=-1) if grey else rgb


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", COLOR_ENCODINGS)
def test_colours_survive(picture, encoding, padding):
    rows = encode(picture, encoding)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=255)
    step = padded.shape[1]
    decoded = decode_image(array.array("B", padded.tobytes()), encoding, WIDTH, HEIGHT, step)
    assert decoded.shape == (HEIGHT, WIDTH, 3)
    assert decoded.dtype == np.uint8
    tolerance = 20 if encoding.startswith(LOSSY) else 0
    inner = np.s_[2:-2, 2:-2] if encoding.startswith("bayer") else np.s_[:]
    difference = np.abs(decoded.astype(int) - expected(picture, encoding))[inner]
    assert difference.max() <= tolerance


@pytest.mark.parametrize("encoding", [name for name in COLOR_ENCODINGS if "16" in name])
def test_big_endian_equals_little_endian(picture, encoding):
    rows = encode(picture, encoding)
    swapped = rows.view("<u2").byteswap().tobytes()
    little = decode_image(rows.tobytes(), encoding, WIDTH, HEIGHT, rows.shape[1], False)
    assert np.array_equal(little, decode_image(swapped, encoding, WIDTH, HEIGHT, rows.shape[1], True))
    assert not np.array_equal(little, decode_image(swapped, encoding, WIDTH, HEIGHT, rows.shape[1], False))


def test_rgb8_is_not_copied(picture):
    data = bytearray(picture.tobytes())
    decoded = decode_image(data, "rgb8", WIDTH, HEIGHT, WIDTH * 3)
    data[0] = 123
    assert decoded[0, 0, 0] == 123


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encoding": "rgb9"}, ("rgb9", "rgb8")),
        ({"width": 0}, ("0x16",)),
        ({"height": 0}, ("32x0",)),
        ({"step": 95}, ("95", "96")),
        ({"height": 17}, ("1536", "1632")),
        ({"data": b""}, ("no data",)),
        ({"width": 10_000, "height": 10_000, "step": 30_000}, ("10000x10000",)),
        ({"encoding": "yuyv", "width": 31}, ("31x16", "even")),
        ({"encoding": "nv12", "height": 15}, ("32x15", "even")),
        ({"encoding": "nv21", "step": 96}, ("2304", "1536")),
    ],
)
def test_malformed_images_name_both_sides(picture, change, words):
    message = {"data": picture.tobytes(), "encoding": "rgb8", "width": WIDTH, "height": HEIGHT, "step": 96} | change
    with pytest.raises(InputError) as error:
        decode_image(**message)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    ("encoding", "dtype", "bigendian", "unit"),
    [("16UC1", "<u2", 0, 1000), ("mono16", ">u2", 1, 1000), ("32FC1", "<f4", 0, 1), ("32FC1", ">f4", 1, 1)],
)
def test_depth_is_metres_with_holes(encoding, dtype, bigendian, unit):
    metres = np.array([[0.0, 0.5, 1.25], [3.0, 10.0, 60.0]], np.float32)
    raw = np.round(metres * unit, 6).astype(dtype)
    padded = np.pad(raw.view(np.uint8).reshape(2, -1), ((0, 0), (0, 3)))
    depth = decode_depth(padded.tobytes(), encoding, 3, 2, padded.shape[1], bigendian)
    assert depth.dtype == np.float32
    assert np.isnan(depth[0, 0])
    assert np.allclose(depth.ravel()[1:], metres.ravel()[1:])


def test_depth_keeps_too_far_and_drops_invalid():
    raw = np.array([[np.nan, np.inf, -np.inf, -1.0]], np.float32)
    assert np.array_equal(decode_depth(raw.tobytes(), "32FC1", 4, 1, 16), [[np.nan, np.inf, np.nan, np.nan]], True)
    with pytest.raises(InputError, match=r"rgb8.*16UC1"):
        decode_depth(raw.tobytes(), "rgb8", 4, 1, 16)


def stored(image: np.ndarray, extension: str) -> bytes:
    return cv2.imencode(extension, image, [cv2.IMWRITE_JPEG_QUALITY, 98] if extension == ".jpg" else [])[1].tobytes()


@pytest.mark.parametrize("extension", [".jpg", ".png"])
@pytest.mark.parametrize("format", ["jpeg", "png", "rgb8; jpeg compressed bgr8", "bgr8; png compressed bgr8", ""])
def test_compressed_colours(picture, extension, format):
    decoded = decode_compressed(stored(picture[..., ::-1], extension), format)
    assert np.abs(decoded.astype(int) - picture).max() <= (14 if extension == ".jpg" else 0)


def test_compressed_channel_orders_and_depths(picture):
    grey = np.repeat(picture[..., :1], 3, axis=-1)
    rgba = np.concatenate([picture[..., ::-1], grey[..., :1]], axis=-1)
    assert np.array_equal(decode_compressed(stored(picture, ".png"), "rgb8; png compressed rgb8"), picture)
    assert np.array_equal(decode_compressed(stored(rgba, ".png"), "bgra8; png compressed bgra8"), picture)
    assert np.array_equal(decode_compressed(stored(grey[..., 0], ".png"), "mono8; png compressed "), grey)
    assert np.array_equal(decode_compressed(stored(grey[..., 0].astype("u2") * 256, ".png"), "mono16; png"), grey)
    mosaic = decode_compressed(stored(encode(picture, "bayer_gbrg8"), ".png"), "bayer_gbrg8; png compressed ")
    assert np.abs(mosaic.astype(int) - picture)[2:-2, 2:-2].max() <= 12


def test_padding_after_a_jpeg_is_accepted(picture):
    jpeg = stored(picture[..., ::-1], ".jpg")
    assert np.array_equal(decode_compressed(jpeg + bytes(1000), "jpeg"), decode_compressed(jpeg, "jpeg"))


@pytest.mark.parametrize("extension", [".jpg", ".png"])
@pytest.mark.parametrize("kept", [1 / 3, 0.9, -1])
def test_truncated_files_are_refused(picture, extension, kept):
    whole = stored(picture[..., ::-1], extension)
    cut = whole[: int(len(whole) * kept)] if kept > 0 else whole[:-1]
    with pytest.raises(InputError, match=f"cut off after {len(cut)} bytes"):
        decode_compressed(cut, "jpeg")


def test_other_damage_is_refused(picture):
    png = bytearray(stored(picture, ".png"))
    png[40:60] = bytes(20)
    with pytest.raises(InputError, match="damaged"):
        decode_compressed(bytes(png), "png")
    with pytest.raises(InputError, match="neither JPEG nor PNG"):
        decode_compressed(b"GIF89a" + bytes(100), "gif")
    with pytest.raises(InputError, match="no data"):
        decode_compressed(b"", "jpeg")
    huge = bytearray(stored(picture, ".jpg"))
    frame = huge.index(b"\xff\xc0")
    huge[frame + 5 : frame + 9] = b"\x27\x10\x27\x10"
    with pytest.raises(InputError, match="10000x10000"):
        decode_compressed(bytes(huge), "jpeg")
