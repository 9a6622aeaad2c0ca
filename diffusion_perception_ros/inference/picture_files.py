"""Picture files → RGB or stored values, refusing what is cut off."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.sample import UInt8Image


PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
"""What OpenCV decodes everywhere; compare with `path.suffix.lower()`."""


def read_picture(path: Path) -> UInt8Image:
    """Reads a picture file, turned upright as its EXIF tag says; 16 bits become 8, grey becomes RGB, alpha is dropped.

    Returns:
        (H, W, 3) uint8, sRGB.

    Raises:
        InputError: missing, not a picture, truncated or damaged.
    """
    return cast(UInt8Image, cv2.cvtColor(_decode(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB))


def read_values(path: Path) -> npt.NDArray[Any]:
    """Reads a picture file whose pixels are numbers: (H, W) or (H, W, C) as stored, channels in the order B, G, R, A.

    Raises:
        InputError: as `read_picture`.
    """
    return _decode(path, cv2.IMREAD_UNCHANGED)


def _decode(path: Path, flags: int) -> npt.NDArray[Any]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if not data:
        raise InputError(f"{path} is empty")
    # OpenCV fills what is missing of a JPEG with grey and reports success.
    if data.startswith(b"\xff\xd8") and not _jpeg_is_complete(data):
        raise InputError(f"{path} is a truncated JPEG: it stops after {len(data)} bytes without an end marker")
    if data.startswith(b"\x89PNG") and b"IEND" not in data[-4096:]:
        raise InputError(f"{path} is a truncated PNG: it stops after {len(data)} bytes without an end chunk")
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise InputError(f"{path} cannot be decoded: {error.err}") from error
    if picture is None:
        raise InputError(f"{path} is not a picture that can be decoded: it is damaged or of another format")
    return picture


def _jpeg_is_complete(data: bytes) -> bool:
    """Whether the end marker comes after the start of the picture data; thumbnails before that have their own.

    Coded data cannot hold the end marker. What follows it (padding, the film of a phone's moving picture) is allowed.
    """
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker == 0xDA:  # start of scan
            return data.find(b"\xff\xd9", position) >= 0
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return False
