"""What a compressed image message holds is told by its content, and depth comes out in metres; damage is refused."""

from __future__ import annotations

import io
import struct
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.compressed_depth import decode_compressed_depth
from diffusion_perception_ros.inference.image_messages import color_of, depth_of, kind_of


HEIGHT, WIDTH = 24, 34


def compressed(format: str, data: bytes) -> SimpleNamespace:
    return SimpleNamespace(format=format, data=np.frombuffer(data, np.uint8))


def jpeg(progressive: bool = False, thumbnail: bool = False) -> bytes:
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    rgb = np.stack([7 * u, 10 * v, 3 * (u + v)], axis=-1).astype(np.uint8)
    target = io.BytesIO()
    exif = Image.Exif()
    Image.fromarray(rgb).save(target, "JPEG", quality=95, progressive=progressive, exif=exif)
    data = target.getvalue()
    if thumbnail:
        inner = cv2.imencode(".jpg", rgb[::4, ::4])[1].tobytes()
        data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(inner) + 2) + inner + data[2:]
    return data


TAILS = {
    "nothing": b"",
    "zeros": bytes(3000),
    "more zeros than a page": bytes(600_000),
    "a line end": b"\r\n",
    "a multipart boundary": b"\r\n--boundary\r\nContent-Type: image/jpeg\r\n\r\n",
    "filler": b"\xff" * 500,
    "the rest of an older image": jpeg()[200:],
    "the start of the next image": jpeg()[:300],
}


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("kind", ["baseline", "progressive", "thumbnail", "png"])
def test_what_follows_an_image_does_not_matter(kind: str, tail: str) -> None:
    if kind == "png":
        data = cv2.imencode(".png", np.arange(HEIGHT * WIDTH * 3, dtype=np.uint8).reshape(HEIGHT, WIDTH, 3))[
            1
        ].tobytes()
    else:
        data = jpeg(kind == "progressive", kind == "thumbnail")
    plain = color_of(compressed("jpeg", data))
    np.testing.assert_array_equal(color_of(compressed("jpeg", data + TAILS[tail])), plain)


@pytest.mark.parametrize("tail", [b"", bytes(3000), b"\xff" * 500, b"\r\n"])
@pytest.mark.parametrize("kept", [0.3, 0.7, 0.97])
@pytest.mark.parametrize("thumbnail", [False, True])
def test_an_image_that_lacks_data_is_truncated_whatever_follows(kept: float, tail: bytes, thumbnail: bool) -> None:
    data = jpeg(thumbnail=thumbnail)
    with pytest.raises(InputError, match="truncated JPEG"):
        color_of(compressed("jpeg", data[: int(kept * len(data))] + tail))


def millimetres() -> np.ndarray:
    """Depth with holes, steps in both directions and a long run without measurement."""
    rng = np.random.default_rng(3)
    values = rng.integers(300, 9000, (HEIGHT, WIDTH)).astype(np.uint16)
    values[5:9], values[:, 7], values[0, 0] = 0, 0, 65535
    return values


def encode_rvl(values: np.ndarray) -> bytes:
    """As the paper describes it, number by number."""
    groups: list[int] = []

    def put(number: int) -> None:
        while True:
            group, number = number & 7, number >> 3
            groups.append(group | (8 if number else 0))
            if not number:
                return

    flat, previous, place = values.reshape(-1).tolist(), 0, 0
    while place < len(flat):
        zeros = 0
        while place + zeros < len(flat) and flat[place + zeros] == 0:
            zeros += 1
        length = 0
        while place + zeros + length < len(flat) and flat[place + zeros + length]:
            length += 1
        put(zeros)
        put(length)
        for value in flat[place + zeros : place + zeros + length]:
            delta = value - previous
            put(2 * delta if delta >= 0 else -2 * delta - 1)
            previous = value
        place += zeros + length
    groups += [0] * (-len(groups) % 8)
    words = [sum(group << (28 - 4 * i) for i, group in enumerate(groups[k : k + 8])) for k in range(0, len(groups), 8)]
    return struct.pack("<ii", values.shape[1], values.shape[0]) + struct.pack(f"<{len(words)}I", *words)


def png16(values: np.ndarray) -> bytes:
    return cv2.imencode(".png", values)[1].tobytes()


def header(scale: float = 0.0, offset: float = 0.0) -> bytes:
    return struct.pack("<iff", 0, scale, offset)


FORMATS = {
    "16UC1; png compressed": png16,
    "16UC1; png compressed ": png16,
    "16UC1;compressedDepth": lambda values: header() + png16(values),
    "16UC1; compressedDepth": lambda values: header() + png16(values),
    "16UC1; compressedDepth png": lambda values: header() + png16(values),
    "16UC1; compressedDepth rvl": lambda values: header() + encode_rvl(values),
    "compressedDepth": png16,
    "png": png16,
    "16UC1; png compressed 16UC1": png16,
}


@pytest.mark.parametrize("format", FORMATS)
def test_depth_in_millimetres(format: str) -> None:
    values = millimetres()
    message = compressed(format, FORMATS[format](values))
    assert kind_of(message).kind == "depth"
    depth = depth_of(message)
    assert np.isnan(depth[values == 0]).all()
    np.testing.assert_allclose(depth[values > 0], values[values > 0] / 1000, rtol=1e-6)


@pytest.mark.parametrize("codec", ["png", "rvl"])
def test_depth_in_metres_is_stored_inversely(codec: str) -> None:
    metres = millimetres().astype(np.float32) / 1000
    metres[0, 0] = 10.0
    scale, offset = 100.0 * 101.0, 1.0 - 100.0 * 101.0 / 10.0
    values = np.where(metres > 0, scale / np.maximum(metres, 1e-9) + offset, 0).astype(np.uint16)
    body = png16(values) if codec == "png" else encode_rvl(values)
    depth = depth_of(compressed(f"32FC1; compressedDepth {codec}", header(scale, offset) + body))
    assert np.isnan(depth[metres == 0]).all()
    np.testing.assert_allclose(depth[values > 0], metres[values > 0], rtol=2e-3)


def test_an_empty_depth_image() -> None:
    none = np.zeros((HEIGHT, WIDTH), np.uint16)
    assert np.isnan(decode_compressed_depth(header() + encode_rvl(none), "16UC1; compressedDepth rvl")).all()


def test_damaged_depth_is_refused() -> None:
    data = header() + encode_rvl(millimetres())
    for broken, words in (
        (data[:-40], "cut off"),
        (data[:14], "cut off"),
        (data[:8], "cut off"),
        (header() + struct.pack("<ii", 1 << 20, 1 << 20) + data[20:], "larger than"),
        (header() + struct.pack("<ii", WIDTH, HEIGHT // 2) + data[20:], "more than"),
        (header() + png16(millimetres())[:-30], "truncated PNG"),
        (header() + png16((millimetres() >> 8).astype(np.uint8)), "8 bits"),
    ):
        with pytest.raises(InputError, match=words):
            decode_compressed_depth(broken, "16UC1; compressedDepth")
    with pytest.raises(InputError, match="lacks the header"):
        decode_compressed_depth(png16(millimetres()), "32FC1; compressedDepth")


def test_other_kinds_are_told_apart() -> None:
    grey = png16(millimetres())
    assert kind_of(compressed("mono16; png compressed", grey), "/thermal").kind == "color"
    assert kind_of(compressed("mono16; png compressed", grey), "/camera/depth").kind == "depth"
    assert kind_of(compressed("bayer_rggb16; png compressed", grey)).kind == "color"
    assert kind_of(compressed("rgb8; png compressed bgr8", png16(np.zeros((4, 4, 3), np.uint8)))).kind == "color"
    assert kind_of(compressed("jpeg", jpeg()[:100])).kind == "color"
    assert kind_of(compressed("tiff", b"II*\0" + bytes(100))).kind == "other"
    for encoding, kind in {
        "rgb8": "color",
        "mono16": "color",
        "16UC1": "depth",
        "32FC1": "depth",
        "32SC1": "other",
    }.items():
        assert kind_of(SimpleNamespace(encoding=encoding)).kind == kind
    assert kind_of(SimpleNamespace(encoding="mono16"), "/camera/depth/image").kind == "depth"
