"""What the bytes of a JPEG or PNG file say before it is decoded: whether they are all there, size and kind of pixels.

One rule for files, messages and annotations. Whatever follows the end of the image (zeros, line ends, filler bytes or
the rest of a driver's buffer) belongs to nobody and is allowed.
"""

from __future__ import annotations

import re
import struct
from typing import Any, NamedTuple

from diffusion_perception_ros.errors import InputError


JPEG_MAGIC = b"\xff\xd8"
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})
_START_OF_SCAN = 0xDA


class EncodedImage(NamedTuple):
    """The header of a JPEG or PNG."""

    codec: str
    """`jpeg` or `png`."""
    width: int
    height: int
    bits: int
    """Per channel: 8, 12 or 16 (less for PNG palettes)."""
    channels: int
    """1 grey, 2 grey and alpha, 3 colour (palettes, too), 4 colour and alpha."""


def inspect_image(data: Any, name: str) -> EncodedImage | None:
    """Header of a JPEG or PNG whose image data are all there; None for other data.

    Args:
        data: bytes-like.
        name: of the file or message, for the error.

    Raises:
        InputError: it ends before the image does.
    """
    view = memoryview(data).cast("B")
    head = bytes(view[:8])
    if head.startswith(JPEG_MAGIC):
        found, complete = _inspect_jpeg(view)
    elif head.startswith(PNG_MAGIC):
        found, complete = _inspect_png(view)
    else:
        return None
    if found is None or not complete:
        kind = "JPEG" if head.startswith(JPEG_MAGIC) else "PNG"
        raise InputError(f"{name} is a truncated {kind}, cut off after {len(view)} bytes")
    return found


def _inspect_jpeg(view: memoryview) -> tuple[EncodedImage | None, bool]:
    """Walks over the segments, so that a thumbnail inside one of them is not taken for the image."""
    found = None
    position = 2
    while position + 4 <= len(view):
        if view[position] != 0xFF:
            break
        marker = view[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker in _WITHOUT_LENGTH:
            position += 2
            continue
        if marker in _FRAME_HEADERS and position + 10 <= len(view):
            bits, height, width, channels = struct.unpack_from(">BHHB", view, position + 4)
            found = EncodedImage("jpeg", width, height, bits, channels)
        if marker == _START_OF_SCAN:
            # Entropy-coded data cannot hold the end marker.
            return found, re.compile(b"\xff\xd9").search(view, position) is not None
        position += 2 + struct.unpack_from(">H", view, position + 2)[0]
    return found, False


def _inspect_png(view: memoryview) -> tuple[EncodedImage | None, bool]:
    found = None
    position = len(PNG_MAGIC)
    while position + 12 <= len(view):
        length, kind = struct.unpack_from(">I4s", view, position)
        if kind == b"IHDR" and position + 21 <= len(view):
            width, height, bits, color = struct.unpack_from(">IIBB", view, position + 8)
            found = EncodedImage("png", width, height, bits, {0: 1, 4: 2, 6: 4}.get(color, 3))
        position += 12 + length
        if kind == b"IEND":
            return found, position <= len(view)
    return found, False
