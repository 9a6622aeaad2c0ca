"""Depth images inside CompressedImage messages: 16-bit PNG, and what the compressedDepth transport makes of depth.

compressedDepth puts a header of 12 bytes (int32, two float32) before the file. 16UC1 is stored as it is; 32FC1 as
q = A / depth + B rounded to 16 bits, where A and B are the two numbers and 0 means no measurement. The file is a PNG,
or "RVL": width and height as int32, then runs of zeros and differences in a variable-length code of 4-bit groups
(A. D. Wilson, Fast Lossless Depth Image Compression, ISS 2017).
"""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.encoded_images import PNG_MAGIC, inspect_image
from diffusion_perception_ros.inference.image_encodings import LIMITS, as_bytes
from diffusion_perception_ros.sample import FloatImage


DEPTH_SOURCES = ("16UC1", "32FC1")
_HEADER = 12


def is_depth_format(format: str) -> bool:
    """Whether the format string of a CompressedImage says that it holds depth."""
    return "compresseddepth" in format.lower() or format.partition(";")[0].strip().upper() in DEPTH_SOURCES


def decode_compressed_depth(data: Any, format: str) -> FloatImage:
    """Metres of a CompressedImage that holds depth.

    Args:
        data: bytes-like.
        format: `16UC1; png compressed`, `16UC1; compressedDepth`, `32FC1; compressedDepth png`, `…rvl` and the like.

    Returns:
        (H, W) float32; NaN where there is no measurement.

    Raises:
        InputError: cut off, damaged, or no depth.
    """
    name = f"compressed depth image of format '{format}'"
    stream = as_bytes(data, name)
    if stream[:8].tobytes() == PNG_MAGIC:  # as from the compressed transport, or without the header
        if format.upper().startswith("32FC1"):
            raise InputError(f"{name} lacks the header that says what its values are in metres")
        return _metres(_png(stream, name))
    if len(stream) <= _HEADER:
        raise InputError(f"{name} is cut off after {len(stream)} bytes")
    _, scale, offset = struct.unpack_from("<iff", stream.data)
    body = stream[_HEADER:]
    values = _png(body, name) if body[:8].tobytes() == PNG_MAGIC else decode_rvl(body, name)
    is_inverse = format.upper().startswith("32FC1") or (not format.upper().startswith("16UC1") and scale > 0)
    return _from_inverse(values, scale, offset, name) if is_inverse else _metres(values)


def decode_rvl(data: Any, name: str) -> npt.NDArray[np.uint16]:
    """(H, W) values of an RVL stream with its size before it.

    Raises:
        InputError: cut off or damaged.
    """
    stream = as_bytes(data, name)
    if len(stream) < 8:
        raise InputError(f"{name} is cut off after {len(stream)} bytes of RVL")
    width, height = struct.unpack_from("<ii", stream.data)
    LIMITS.check(width, height, name)
    numbers = _rvl_numbers(stream[8:])
    count = width * height
    deltas, places = [], []
    number, pixel = 0, 0
    while pixel < count and number < len(numbers):
        pixel += max(0, int(numbers[number]))  # so many pixels without a measurement
        length = int(numbers[number + 1]) if number + 1 < len(numbers) else 0
        number += 2
        if not 0 <= length <= count - pixel:  # also where a number does not fit into 64 bits
            raise InputError(f"{name} is damaged: its RVL data hold more than {width}x{height} pixels")
        deltas.append(numbers[number : number + length])
        places.append(np.arange(pixel, pixel + len(deltas[-1])))
        number, pixel = number + length, pixel + length
    if pixel < count or number > len(numbers):
        raise InputError(f"{name} is cut off: its RVL data end before {width}x{height} pixels")
    values = np.zeros(count, np.uint16)
    coded = np.concatenate([*deltas, np.zeros(0, np.int64)])
    signed = (coded >> 1) ^ -(coded & 1)  # 0, -1, 1, -2, … as 0, 1, 2, 3, …
    values[np.concatenate([*places, np.zeros(0, np.int64)])] = np.cumsum(signed) & 0xFFFF
    return values.reshape(height, width)


def _rvl_numbers(stream: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """The numbers of the stream: 3 bits per group, the lowest first; the fourth bit says that more follow."""
    # little-endian words, the highest group first
    words: npt.NDArray[np.uint8] = stream[: len(stream) // 4 * 4].reshape(-1, 4)[:, ::-1]
    groups: npt.NDArray[np.uint8] = np.stack([words >> 4, words & 15], axis=-1).reshape(-1)
    last = np.flatnonzero(groups < 8)
    groups = groups[: last[-1] + 1] if len(last) else groups[:0]
    first = np.concatenate([[0], last[:-1] + 1]) if len(last) else last
    place = np.arange(len(groups)) - np.repeat(first, last - first + 1)
    shifted = (groups & 7).astype(np.int64) << (3 * np.minimum(place, 20))
    return np.add.reduceat(shifted, first) if len(last) else np.zeros(0, np.int64)


def _png(stream: npt.NDArray[np.uint8], name: str) -> npt.NDArray[np.uint16]:
    header = inspect_image(stream, name)
    assert header is not None
    LIMITS.check(header.width, header.height, name)
    if (header.bits, header.channels) != (16, 1):
        raise InputError(f"{name} holds {header.channels} channels of {header.bits} bits: depth is one of 16 bits")
    values = cv2.imdecode(stream, cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.ndim != 2:
        raise InputError(f"{name} is damaged: OpenCV cannot decode its {len(stream)} bytes")
    return np.asarray(values, np.uint16)


def _metres(values: npt.NDArray[np.uint16]) -> FloatImage:
    depth = values.astype(np.float32) * np.float32(0.001)
    depth[values == 0] = np.nan
    return depth


def _from_inverse(values: npt.NDArray[np.uint16], scale: float, offset: float, name: str) -> FloatImage:
    if not (np.isfinite(scale) and scale > 0 and np.isfinite(offset)):
        raise InputError(f"{name} has the quantisation {scale:g}, {offset:g}, which gives no metres")
    with np.errstate(divide="ignore"):
        depth = (np.float32(scale) / (values.astype(np.float32) - np.float32(offset))).astype(np.float32)
    depth[(values == 0) | ~(depth > 0)] = np.nan
    return depth
