"""Image messages of any kind to arrays: `Image` and `CompressedImage`, of rclpy or of rosbags, told apart by content.

What a message holds is said by its type, its encoding or format string and, where those say nothing, by its bytes.
Names of topics only help where all of these leave it open.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.compressed_depth import decode_compressed_depth, is_depth_format
from diffusion_perception_ros.inference.encoded_images import inspect_image
from diffusion_perception_ros.inference.image_encodings import (
    COLOR_ENCODINGS,
    LIMITS,
    ImageLimits,
    decode_compressed,
    decode_depth,
    decode_image,
)
from diffusion_perception_ros.inference.video import MISSING, is_available, packet_of
from diffusion_perception_ros.sample import FloatImage, UInt8Image


COLOR, DEPTH, OTHER = "color", "depth", "other"
_DEPTH_ENCODINGS = ("16UC1", "32FC1")
_COMPRESSED_DEPTH_NAME = "compressedDepth"


class ImageKind(NamedTuple):
    """What an image message holds."""

    kind: str
    """`color`, `depth` or `other`."""
    form: str
    """Its encoding or format, for people."""
    reason: str = ""
    """Of `other`: why it can be used for neither."""


def is_raw(message: Any) -> bool:
    """Whether it is an Image; a CompressedImage has a format instead of an encoding."""
    return hasattr(message, "encoding")


def kind_of(message: Any, topic: str = "") -> ImageKind:
    """What an image message holds, also one of video; its pixels need not be whole."""
    packet = packet_of(message)
    if packet is not None:
        if is_available():
            return ImageKind(COLOR, f"{packet.codec} video")
        return ImageKind(OTHER, f"{packet.codec} video", f"it is {packet.codec} video, which {MISSING}")
    if is_raw(message):
        return _kind_of_raw(str(message.encoding), topic)
    return _kind_of_compressed(message.data, str(message.format), topic)


def color_of(message: Any, limits: ImageLimits = LIMITS) -> UInt8Image:
    """RGB image (H, W, 3) of an Image or CompressedImage within limits; of rgb8 a view of the message's data.

    Raises:
        InputError: it cannot be decoded; the message says why.
    """
    if not is_raw(message):
        return decode_compressed(message.data, message.format, limits)
    return decode_image(
        message.data, message.encoding, message.width, message.height, message.step, message.is_bigendian, limits
    )


def depth_of(message: Any) -> FloatImage:
    """Metres (H, W) of an Image or CompressedImage, NaN where nothing was measured.

    Raises:
        InputError: it cannot be decoded, or holds no depth; the message says why.
    """
    if not is_raw(message):
        return decode_compressed_depth(message.data, message.format)
    return decode_depth(
        message.data, message.encoding, message.width, message.height, message.step, message.is_bigendian
    )


def _kind_of_raw(encoding: str, topic: str) -> ImageKind:
    if encoding in _DEPTH_ENCODINGS or (encoding == "mono16" and _names_depth(topic)):
        return ImageKind(DEPTH, encoding)
    if encoding in COLOR_ENCODINGS:
        return ImageKind(COLOR, encoding)
    return ImageKind(OTHER, encoding, f"its encoding '{encoding}' is neither colour nor depth that can be decoded")


def _kind_of_compressed(data: Any, format: str, topic: str) -> ImageKind:
    if is_depth_format(format) or topic.rpartition("/")[2] == _COMPRESSED_DEPTH_NAME:
        return ImageKind(DEPTH, format)
    try:
        header = inspect_image(data, "image") if len(data) else None
    except InputError:  # a message that is cut off says nothing of its topic
        return ImageKind(COLOR, format)
    if header is None and len(data):
        return ImageKind(OTHER, format, f"its format '{format}' with neither JPEG nor PNG data cannot be decoded")
    is_one_channel = header is not None and (header.bits, header.channels) == (16, 1)
    says_grey = format.partition(";")[0].strip().startswith(("mono", "bayer"))
    if is_one_channel and (not says_grey or (format.startswith("mono16") and _names_depth(topic))):
        return ImageKind(DEPTH, format or "png")
    return ImageKind(COLOR, format)


def _names_depth(topic: str) -> bool:
    return "depth" in topic.lower()
