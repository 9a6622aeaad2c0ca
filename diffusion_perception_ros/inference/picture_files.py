"""Image files → RGB or stored values, refusing what is cut off."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.encoded_images import inspect_image
from diffusion_perception_ros.sample import UInt8Image


PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
"""What OpenCV decodes everywhere; compare with `path.suffix.lower()`."""


def read_picture(path: Path) -> UInt8Image:
    """Reads an image file, turned upright as its EXIF tag says; 16 bits become 8, grey becomes RGB, alpha is dropped.

    Returns:
        (H, W, 3) uint8, sRGB.

    Raises:
        InputError: missing, not an image, truncated or damaged.
    """
    return cast(UInt8Image, cv2.cvtColor(_decode(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB))


def read_values(path: Path) -> npt.NDArray[Any]:
    """Reads an image file whose pixels are numbers: (H, W) or (H, W, C) as stored, channels in the order B, G, R, A.

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
    inspect_image(data, str(path))  # OpenCV fills what is missing of a JPEG with grey and reports success
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise InputError(f"{path} cannot be decoded: {error.err}") from error
    if image is None:
        raise InputError(f"{path} is not an image that can be decoded: it is damaged or of another format")
    return image
