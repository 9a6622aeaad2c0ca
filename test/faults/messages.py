"""Bad messages of every kind, by name."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from harness import camera_info, compressed_image, header, rgb_image
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from faults.bench import HEIGHT, RGB, WIDTH


NAN = float("nan")


def changed_image(stamp: float, **fields: Any) -> Image:
    message = rgb_image(RGB, stamp)
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def sized_image(stamp: float, width: int, height: int, encoding: str = "mono8") -> Image:
    """An image of zeros whose fields agree with each other."""
    message = Image(header=header(stamp), width=width, height=height, encoding=encoding, step=width)
    message.data.frombytes(bytes(width * height))
    return message


def changed_info(stamp: float, **fields: Any) -> CameraInfo:
    message = camera_info(stamp, WIDTH, HEIGHT)
    for name, value in fields.items():
        if name in ("k", "p", "d"):
            array = np.array(getattr(message, name), np.float64)
            array[:] = value
            setattr(message, name, array if name != "d" else array.tolist())
        else:
            setattr(message, name, value)
    return message


def short_data(stamp: float) -> Image:
    message = rgb_image(RGB, stamp)
    del message.data[100:]
    return message


IMAGES: dict[str, Callable[[float], Image]] = {
    "unknown encoding": lambda s: changed_image(s, encoding="rgb7"),
    "empty encoding": lambda s: changed_image(s, encoding=""),
    "encoding of control characters": lambda s: changed_image(s, encoding="\x1b[2Jrgb8\n" * 50),
    "long encoding": lambda s: changed_image(s, encoding="x" * 100_000),
    "no data": lambda s: Image(header=header(s), width=WIDTH, height=HEIGHT, encoding="rgb8", step=3 * WIDTH),
    "short data": short_data,
    "zero size": lambda s: Image(header=header(s), encoding="rgb8"),
    "huge size": lambda s: changed_image(s, width=2**32 - 1, height=2**32 - 1),
    "zero step": lambda s: changed_image(s, step=0),
    "short step": lambda s: changed_image(s, step=3),
    "huge step": lambda s: changed_image(s, step=2**32 - 1),
    "wrong byte order": lambda s: changed_image(s, is_bigendian=255, encoding="mono16", step=2 * WIDTH),
    "odd nv12": lambda s: changed_image(s, encoding="nv12", width=WIDTH - 1),
    "depth as colour": lambda s: changed_image(s, encoding="32FC1"),
    "long frame": lambda s: changed_image(s, header=header(s, "f" * 100_000)),
    "one pixel": lambda s: sized_image(s, 1, 1),
    "one long row": lambda s: sized_image(s, 100_000, 1),
    "one long column": lambda s: sized_image(s, 1, 100_000),
}

INFOS: dict[str, Callable[[float], CameraInfo]] = {
    "uncalibrated": lambda s: changed_info(s, k=0.0),
    "K of NaN": lambda s: changed_info(s, k=NAN, p=NAN),
    "K of infinity": lambda s: changed_info(s, k=float("inf"), p=float("inf")),
    "negative focal length": lambda s: camera_info(s, WIDTH, HEIGHT, -100.0),
    "tiny focal length": lambda s: camera_info(s, WIDTH, HEIGHT, 1e-300),
    "D of NaN": lambda s: changed_info(s, d=NAN),
    "unknown distortion": lambda s: changed_info(s, distortion_model="x" * 1000),
    "other size": lambda s: camera_info(s, 7, 5),
    "zero size": lambda s: camera_info(s, 0, 0),
    "huge binning": lambda s: changed_info(s, binning_x=2**32 - 1, binning_y=2**32 - 1),
    "other frame": lambda s: changed_info(s, header=header(s, "elsewhere")),
}


def png_of(width: int, height: int) -> bytes:
    """A well-formed PNG header of that size with almost no data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + size + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def jpeg_of(width: int, height: int) -> bytes:
    """A small JPEG whose header declares another size."""
    data = bytearray(cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def png_bomb(width: int, height: int) -> bytes:
    """A valid PNG of one colour: some kilobytes that become width * height * 3 bytes."""
    return cv2.imencode(".png", np.zeros((height, width, 3), np.uint8), [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()


GOOD_PNG = cv2.imencode(".png", RGB)[1].tobytes()
GOOD_JPEG = cv2.imencode(".jpg", RGB)[1].tobytes()
COMPRESSED: dict[str, Callable[[float], CompressedImage]] = {
    "JPEG that declares 8000x8000": lambda s: compressed_image(jpeg_of(8000, 8000), "jpeg", s),
    "JPEG that declares 65500x65500": lambda s: compressed_image(jpeg_of(65500, 65500), "jpeg", s),
    "PNG that declares 1000000x1": lambda s: compressed_image(png_of(1_000_000, 1), "png", s),
    "PNG that declares 2147483647x2147483647": lambda s: compressed_image(png_of(2**31 - 1, 2**31 - 1), "png", s),
    "PNG that declares 12000x12000": lambda s: compressed_image(png_of(12000, 12000), "png", s),
    "empty": lambda s: compressed_image(b"", "jpeg", s),
    "no image": lambda s: compressed_image(b"GIF89a" + bytes(100), "jpeg", s),
    "cut JPEG": lambda s: compressed_image(GOOD_JPEG[: len(GOOD_JPEG) // 2], "jpeg", s),
    "cut PNG": lambda s: compressed_image(GOOD_PNG[: len(GOOD_PNG) // 2], "png", s),
    "long format": lambda s: compressed_image(GOOD_JPEG, "x" * 100_000, s),
    "random bytes": lambda s: compressed_image(np.random.default_rng(1).bytes(5000), "jpeg", s),
}


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """A message's bytes, cut off or with some of them changed."""
    data = bytearray(content)
    if rng.random() < 0.3:
        return bytes(data[: rng.integers(0, len(data))])
    for _ in range(rng.integers(1, 8)):
        data[rng.integers(0, min(len(data), 200 if rng.random() < 0.8 else len(data)))] = rng.integers(0, 256)
    return bytes(data)
