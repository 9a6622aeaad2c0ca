"""Compressed video, packet by packet: H.264, H.265, AV1, VP9, as messages of several packages carry it.

Decoding is done by PyAV (FFmpeg), an optional dependency. A stream can only be entered at a key frame, and every
packet
after it has to be decoded.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.image_encodings import LIMITS, ImageLimits
from diffusion_perception_ros.sample import UInt8Image


MISSING = "needs PyAV: pip install av"
_CODECS = {
    "h264": ("h264", "avc", "avc1", "x264", "libx264", "libx264rgb", "openh264", "libopenh264"),
    "hevc": ("h265", "hevc", "hev1", "hvc1", "x265", "libx265"),
    "av1": ("av1", "libsvtav1", "libaom-av1", "librav1e", "libdav1d"),
    "vp9": ("vp9", "libvpx-vp9"),
    "vp8": ("vp8", "libvpx"),
}
_HARDWARE = ("_nvenc", "_nvmpi", "_vaapi", "_v4l2m2m", "_omx", "_qsv", "_rkmpp", "_videotoolbox", "_cuvid", "_amf")
MOST_DELAYED = 17
"""Packets that a decoder may hold back before it gives a frame: the largest reorder buffer of H.264 and H.265."""


class Packet(NamedTuple):
    """One compressed image of a video."""

    codec: str
    """FFmpeg's name of the decoder."""
    data: Any
    """bytes-like"""
    is_key: bool
    """Decoding can begin here."""


def packet_of(message: Any) -> Packet | None:
    """The packet of an FFMPEGPacket, a CompressedVideo or an image that is video; None for other messages."""
    if hasattr(message, "pts") and hasattr(message, "encoding"):
        name = str(message.encoding)
        codec = codec_of(name) or name.partition(";")[0].strip().lower()
        return Packet(codec, message.data, bool(int(message.flags) & 1) or _is_key(codec, message.data))
    found = codec_of(str(getattr(message, "format", "")))
    return None if found is None else Packet(found, message.data, _is_key(found, message.data))


def codec_of(format: str) -> str | None:
    """The decoder for a format or an encoder, such as `h264`, `libx264` or `hevc_nvenc;yuv420p`; else None."""
    name = format.partition(";")[0].strip().lower().removeprefix("video/").replace(".", "")
    for suffix in _HARDWARE:
        name = name.removesuffix(suffix)
    return next((codec for codec, names in _CODECS.items() if name in names), None)


def header_of(message: Any) -> Any:
    """Stamp and frame_id; Foxglove's messages have them without a header."""
    if hasattr(message, "header"):
        return message.header
    return SimpleNamespace(stamp=message.timestamp, frame_id=message.frame_id)


def is_available() -> bool:
    """Whether PyAV is installed."""
    try:
        import av  # noqa: F401
    except ImportError:
        return False
    return True


class VideoDecoder:
    """Decodes one stream in order. Not for use by several threads at a time."""

    def __init__(self, codec: str, limits: ImageLimits = LIMITS) -> None:
        """
        Args:
            codec: of `Packet`.
            limits: of the images.

        Raises:
            InputError: PyAV is missing, or does not know the codec.
        """
        try:
            import av
        except ImportError as error:
            raise InputError(f"{codec} video {MISSING}") from error
        self.codec, self._limits, self._av = codec, limits, av
        try:
            self._context = av.CodecContext.create(codec, "r")
        except (av.error.FFmpegError, ValueError) as error:
            raise InputError(f"video of the codec '{codec}' cannot be decoded here: {error}") from error
        self._context.thread_count = 1
        self._context.flags |= 0x80000  # low delay: no frame is held back that need not be

    def feed(self, data: Any, number: int) -> Iterator[tuple[int, UInt8Image]]:
        """Decodes a packet.

        Args:
            data: bytes-like.
            number: ascending; comes back with the frame.

        Returns:
            Frames that are done, with the numbers of their packets; there may be none, or older ones.

        Raises:
            InputError: the packet is damaged, or its frame too large.
        """
        packet = self._av.Packet(bytes(data))
        packet.pts = packet.dts = number
        return self._decoded(packet)

    def flush(self) -> Iterator[tuple[int, UInt8Image]]:
        """Frames that were still held back; nothing can be fed afterwards."""
        return self._decoded(None)

    def _decoded(self, packet: Any) -> Iterator[tuple[int, UInt8Image]]:
        try:
            frames = self._context.decode(packet)  # type: ignore[attr-defined]
        except self._av.error.FFmpegError as error:
            raise InputError(f"a packet of {self.codec} video cannot be decoded: {error}") from error
        for frame in frames:
            self._limits.check(frame.width, frame.height, f"{self.codec} video")
            yield int(frame.pts or 0), np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


def _is_key(codec: str, data: Any) -> bool:
    """Whether a packet holds parameter sets or an intra picture; of codecs whose packets do not say, True."""
    if codec not in ("h264", "hevc"):
        return True
    head = bytes(memoryview(data).cast("B")[:4096])
    place = head.find(b"\0\0\1")
    while 0 <= place < len(head) - 3:
        kind = head[place + 3] & 0x1F if codec == "h264" else head[place + 3] >> 1 & 0x3F
        if kind in ((5, 7) if codec == "h264" else (*range(16, 22), 32, 33)):
            return True
        place = head.find(b"\0\0\1", place + 3)
    return False
