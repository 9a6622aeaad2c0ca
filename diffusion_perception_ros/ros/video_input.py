"""Video on a topic: every packet is decoded in order, but only the latest image is predicted on."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.image_encodings import ImageLimits
from diffusion_perception_ros.inference.video import Packet, VideoDecoder, packet_of
from diffusion_perception_ros.sample import UInt8Image


MOST_PACKETS = 300
"""Packets that may wait; beyond that the stream is entered anew at the next key frame."""
MOST_BYTES = 1 << 26


class VideoInput:
    """`add` is called by the executor, `image` by the worker."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Any, Packet]] = deque()
        self._bytes = 0
        self._is_broken = True
        self._decoder: VideoDecoder | None = None
        self._number = 0

    def add(self, message: Any) -> None:
        """Takes a message in; those that hold no video are passed over."""
        packet = packet_of(message)
        if packet is None:
            return
        with self._lock:
            if len(self._waiting) >= MOST_PACKETS or self._bytes > MOST_BYTES:
                self._waiting.clear()
                self._bytes, self._is_broken = 0, True
            self._waiting.append((message, packet))
            self._bytes += len(packet.data)

    def image(self, message: Any, limits: ImageLimits) -> UInt8Image | None:
        """RGB image of a message that was added, or the last one before it; None for a message that holds no video.

        Raises:
            InputError: PyAV is missing, the stream has had no key frame yet, or a packet is damaged.
        """
        if packet_of(message) is None:
            return None
        rgb = None
        for packet in self._until(message):
            if self._decoder is None or self._decoder.codec != packet.codec:
                self._decoder = VideoDecoder(packet.codec, limits)
            for _, frame in self._decoder.feed(packet.data, self._number):
                rgb = frame
            self._number += 1
        if rgb is None:
            raise InputError("the video has given no image yet: it is entered at its next key frame")
        return rgb

    def _until(self, message: Any) -> list[Packet]:
        """Packets to decode up to a message: from the last key frame if there is one, else all that wait."""
        taken: list[Packet] = []
        with self._lock:
            if not any(waiting is message for waiting, _ in self._waiting):
                return []
            while self._waiting:
                waiting, packet = self._waiting.popleft()
                self._bytes -= len(packet.data)
                taken.append(packet)
                if waiting is message:
                    break
            last_key = max((place for place, packet in enumerate(taken) if packet.is_key), default=None)
            if last_key is not None:
                self._is_broken = False
                return taken[last_key:]
            return [] if self._is_broken else taken
