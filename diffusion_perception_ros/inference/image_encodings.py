"""Image messages to arrays: every encoding cameras publish, raw or compressed, to RGB; depth images to metres.

Works on the fields of `sensor_msgs/Image` and `sensor_msgs/CompressedImage`, wherever they come from (a topic, a bag),
with NumPy views and OpenCV. What cannot be decoded is an `InputError` that names both sides of the disagreement.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.encoded_images import inspect_image
from diffusion_perception_ros.sample import FloatImage, UInt8Image


MAX_PIXELS = 1 << 26
"""Larger images are refused: no camera makes them, and a wrong header must not cost gigabytes."""


class ImageLimits(NamedTuple):
    """What is accepted of an image; what its header promises is checked before memory is taken for it."""

    pixels: int = MAX_PIXELS
    aspect: float = math.inf
    """Longer side divided by the shorter one."""
    bytes: int = 1 << 30
    """Of the message's data, and of the image as it is decoded."""

    def check(self, width: int, height: int, what: str) -> None:
        """Raises InputError for an image without pixels, with too many, or too long a side."""
        if width <= 0 or height <= 0:
            raise InputError(f"{what} image has no pixels: its size is {width}x{height}")
        if width * height > self.pixels:
            raise InputError(f"{what} image of {width}x{height} is larger than the {self.pixels} pixels accepted")
        if max(width, height) > self.aspect * min(width, height):
            raise InputError(f"{what} image of {width}x{height}: one side is over {self.aspect:g} times the other")

    def check_bytes(self, count: int, what: str) -> None:
        """Raises InputError for more bytes than are accepted."""
        if count > self.bytes:
            raise InputError(f"{what}: {count} bytes are more than the {self.bytes} accepted")


LIMITS = ImageLimits()
"""What no camera exceeds."""
_SMALLEST_SHARE = {"jpeg": 1 / 2048, "png": 1 / 8 / 1100}
"""Bytes per pixel that the emptiest image still takes: at least a bit per block of 8 x 8; deflate's best ratio."""


class _Packing(NamedTuple):
    """How the pixels of one encoding lie in memory."""

    conversion: int | None
    """OpenCV's conversion code to RGB, None if it is RGB already."""
    channels: int = 1
    kind: str = "u1"
    """NumPy's name of the value type."""
    planes: float = 1.0
    """Rows stored per image row: 1.5 for 4:2:0 formats with a half-height chroma plane."""
    even: bool = False
    """Chroma is shared between neighbours, so that the width must be even."""


_MONO8 = _Packing(cv2.COLOR_GRAY2RGB)
_MONO16 = _Packing(cv2.COLOR_GRAY2RGB, kind="u2")
_BGR8 = _Packing(cv2.COLOR_BGR2RGB, 3)
_UYVY = _Packing(cv2.COLOR_YUV2RGB_UYVY, 2, even=True)
_YUYV = _Packing(cv2.COLOR_YUV2RGB_YUY2, 2, even=True)
_BAYER = {
    # OpenCV before 4.5.5 knows Bayer patterns by their second row only: BG is RGGB, and so on.
    "rggb": cv2.COLOR_BayerBG2RGB,
    "bggr": cv2.COLOR_BayerRG2RGB,
    "gbrg": cv2.COLOR_BayerGR2RGB,
    "grbg": cv2.COLOR_BayerGB2RGB,
}

_ENCODINGS: dict[str, _Packing] = {
    "rgb8": _Packing(None, 3),
    "bgr8": _BGR8,
    "8UC3": _BGR8,  # OpenCV's own type names come from OpenCV code, which thinks in BGR
    "rgba8": _Packing(cv2.COLOR_RGBA2RGB, 4),
    "bgra8": _Packing(cv2.COLOR_BGRA2RGB, 4),
    "mono8": _MONO8,
    "8UC1": _MONO8,
    "mono16": _MONO16,
    "16UC1": _MONO16,
    "yuv422": _UYVY,
    "uyvy": _UYVY,
    "yuv422_yuy2": _YUYV,
    "yuyv": _YUYV,
    "nv12": _Packing(cv2.COLOR_YUV2RGB_NV12, planes=1.5, even=True),
    "nv21": _Packing(cv2.COLOR_YUV2RGB_NV21, planes=1.5, even=True),
    **{f"bayer_{order}8": _Packing(code) for order, code in _BAYER.items()},
    **{f"bayer_{order}16": _Packing(code, kind="u2") for order, code in _BAYER.items()},
}

COLOR_ENCODINGS = tuple(_ENCODINGS)
"""What `decode_image` understands."""


def decode_image(
    data: Any,
    encoding: str,
    width: int,
    height: int,
    step: int,
    is_bigendian: bool | int = False,
    limits: ImageLimits = LIMITS,
) -> UInt8Image:
    """RGB image of an Image message.

    16-bit encodings are taken as full range (value / 256), YUV as BT.601 limited range, as OpenCV and cv_bridge do.

    Args:
        data: bytes-like (bytes, array.array, memoryview, uint8 array).
        encoding: one of `COLOR_ENCODINGS`.
        width: pixels.
        height: pixels.
        step: bytes from one row to the next, padding included.
        is_bigendian: byte order of 16-bit values.
        limits: what is accepted.

    Returns:
        (H, W, 3) uint8. For rgb8 it is a view of `data`.

    Raises:
        InputError: unknown encoding, or size, step and data disagree.
    """
    packing = _ENCODINGS.get(encoding)
    if packing is None:
        raise InputError(f"image encoding '{encoding[:40]}' is unknown; known are {', '.join(COLOR_ENCODINGS)}")
    limits.check(width, height, encoding)
    limits.check_bytes(len(data), f"{encoding} image")
    if packing.even and width % 2:
        raise InputError(f"{encoding} image of {width}x{height}: the width must be even")
    if packing.planes > 1 and height % 2:
        raise InputError(f"{encoding} image of {width}x{height}: the height must be even")
    rows = int(height * packing.planes)
    image = _pixels(data, encoding, packing.kind, width, rows, step, is_bigendian, packing.channels)
    return _to_rgb(_to_8_bit(image), packing.conversion)


def decode_depth(
    data: Any, encoding: str, width: int, height: int, step: int, is_bigendian: bool | int = False
) -> FloatImage:
    """Metres of a depth Image message (REP 118): 16UC1 or mono16 in millimetres (0 = none), 32FC1 in metres.

    Returns:
        (H, W) float32, own memory; NaN where there is no measurement, +Inf (too far) stays.

    Raises:
        InputError: unknown encoding, or size, step and data disagree.
    """
    LIMITS.check(width, height, encoding[:40])
    if encoding in ("16UC1", "mono16"):
        depth = _pixels(data, encoding, "u2", width, height, step, is_bigendian).astype(np.float32)
        depth *= np.float32(0.001)
    elif encoding == "32FC1":
        depth = _pixels(data, encoding, "f4", width, height, step, is_bigendian).astype(np.float32)
    else:
        raise InputError(
            f"depth encoding '{encoding[:40]}' is unknown; known are 16UC1, mono16 (millimetres), 32FC1 (metres)"
        )
    depth[~(depth > 0)] = np.nan
    return depth


def decode_compressed(data: Any, format: str, limits: ImageLimits = LIMITS) -> UInt8Image:
    """RGB image of a CompressedImage message: JPEG or PNG, 8 or 16 bit, grey, colour or a Bayer mosaic.

    Args:
        data: bytes-like, the JPEG or PNG file.
        format: as image_transport writes it, `<source encoding>; <codec> compressed <stored encoding>`, or the codec.
        limits: what is accepted.

    Returns:
        (H, W, 3) uint8.

    Raises:
        InputError: another codec, a truncated or damaged file, an absurd size.
    """
    name = f"compressed image of format '{format[:60]}'"
    stream = as_bytes(data, name)
    header = inspect_image(stream, name)
    if header is None:
        raise InputError(f"{name} holds neither JPEG nor PNG data")
    limits.check(header.width, header.height, "compressed")
    pixels = header.width * header.height
    limits.check_bytes(max(stream.size, pixels * header.channels * (2 if header.bits > 8 else 1)), name)
    if stream.size < pixels * _SMALLEST_SHARE[header.codec]:
        raise InputError(f"{name} is damaged: {stream.size} bytes cannot hold {header.width}x{header.height} pixels")
    # IMREAD_UNCHANGED also keeps OpenCV from turning the image as its EXIF tag says: it must fit camera_info.
    image: npt.NDArray[Any] | None = cv2.imdecode(stream, cv2.IMREAD_UNCHANGED)
    if image is None:
        raise InputError(f"{name} is damaged: OpenCV cannot decode its {stream.size} bytes")
    image = _to_8_bit(image)
    source, _, stored = format.partition(";")
    if image.ndim == 2:
        mosaic = _ENCODINGS.get(source.strip()) if source.startswith("bayer_") else None
        return _to_rgb(image, (mosaic or _MONO8).conversion)
    if image.shape[2] == 4:
        return _to_rgb(image, cv2.COLOR_BGRA2RGB)
    # A publisher that stored RGB as if it were BGR says so, and OpenCV's swap has already undone it.
    return _to_rgb(image, None if "compressed rgb" in stored else cv2.COLOR_BGR2RGB)


def as_bytes(data: Any, what: str) -> npt.NDArray[np.uint8]:
    """Bytes-like data as an array without a copy; raises InputError where there are none."""
    if len(data) == 0:
        raise InputError(f"{what} has no data")
    return np.frombuffer(data, np.uint8)


def _pixels(
    data: Any,
    encoding: str,
    kind: str,
    width: int,
    rows: int,
    step: int,
    is_bigendian: bool | int,
    channels: int = 1,
) -> npt.NDArray[Any]:
    """View (rows, width) or (rows, width, channels) of `data` with values of a NumPy kind ("u1", "u2", "f4")."""
    dtype = np.dtype(kind).newbyteorder(">" if is_bigendian else "<")
    size = dtype.itemsize
    row = width * channels * size
    if step < row:
        raise InputError(f"{encoding} image: step {step} is shorter than a row of {width} pixels = {row} bytes")
    available = as_bytes(data, f"{encoding} image")
    if available.size < rows * step:
        expected = f"{rows} rows x step {step} = {rows * step}"
        raise InputError(f"{encoding} image: {available.size} bytes of data are fewer than {expected}")
    if channels == 1:
        return np.ndarray((rows, width), dtype, available, strides=(step, size))
    return np.ndarray((rows, width, channels), dtype, available, strides=(step, size * channels, size))


def _to_8_bit(image: npt.NDArray[Any]) -> UInt8Image:
    return (image >> 8).astype(np.uint8) if image.dtype.itemsize == 2 else image


def _to_rgb(image: npt.NDArray[Any], conversion: int | None) -> UInt8Image:
    if conversion is None:
        return image
    return np.asarray(cv2.cvtColor(image, conversion), np.uint8)
