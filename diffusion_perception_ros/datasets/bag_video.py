"""Frames of a video topic of a recording, in any order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.video import MOST_DELAYED, VideoDecoder, packet_of
from diffusion_perception_ros.recordings.recording import Recording, RecordingItem
from diffusion_perception_ros.sample import UInt8Image


_KEPT = 2 * MOST_DELAYED
"""Decoded frames that are kept for who asks for them next."""


class VideoReader:
    """Reading in order decodes every packet once; going back starts again at the key frame before."""

    def __init__(self, recording: Recording, items: Sequence[RecordingItem], keys: Sequence[bool]) -> None:
        """
        Args:
            recording: where the packets are.
            items: all packets of the topic.
            keys: which of them are key frames.
        """
        self._recording, self._items, self._keys = recording, items, keys
        self._decoder: VideoDecoder | None = None
        self._next = 0
        self._frames: dict[int, UInt8Image] = {}

    def frame(self, ordinal: int) -> UInt8Image:
        """(H, W, 3), sRGB.

        Raises:
            InputError: it cannot be decoded, or comes before the first key frame.
        """
        if ordinal in self._frames:
            return self._frames[ordinal]
        key = next((place for place in range(ordinal, -1, -1) if self._keys[place]), None)
        if key is None:
            first = next((place for place, is_key in enumerate(self._keys) if is_key), None)
            known = "it has none" if first is None else f"the first is image {first}"
            raise InputError(f"image {ordinal} comes before the first key frame of the video: {known}")
        if self._decoder is None or not key <= self._next <= ordinal + 1:
            self._decoder, self._next, self._frames = None, key, {}
        problem = self._decode_until(ordinal)
        if ordinal not in self._frames:
            raise InputError(
                problem or f"image {ordinal} of the video gives no frame: a packet before it may be missing"
            )
        return self._frames[ordinal]

    def _decode_until(self, ordinal: int) -> str:
        """Feeds packets until the frame is there; the last thing that went wrong."""
        problem = ""
        while ordinal not in self._frames and self._next < min(ordinal + MOST_DELAYED, len(self._items)):
            try:
                self._feed(self._next)
            except InputError as error:
                problem = str(error)
            self._next += 1
        if ordinal not in self._frames and self._next == len(self._items) and self._decoder is not None:
            self._keep(self._decoder.flush())
            self._decoder = None  # a decoder that was flushed takes nothing more
        return problem

    def _feed(self, number: int) -> None:
        packet = packet_of(self._recording.message(self._items[number]).content)
        if packet is None:
            raise InputError(f"image {number} holds no video")
        if self._decoder is None:
            self._decoder = VideoDecoder(packet.codec)
        self._keep(self._decoder.feed(packet.data, number))

    def _keep(self, frames: Iterable[tuple[int, UInt8Image]]) -> None:
        for number, rgb in frames:
            self._frames[number] = rgb
        while len(self._frames) > _KEPT:
            del self._frames[min(self._frames)]
