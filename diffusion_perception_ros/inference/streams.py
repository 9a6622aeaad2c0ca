"""What is remembered of the last image of each video, for models that look back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from diffusion_perception_ros.inference.card import ModelCard
from diffusion_perception_ros.inference.tensor import FloatTensor
from diffusion_perception_ros.sample import UInt8Image


@dataclass
class LastImage:
    """Of one stream; empty before its first image."""

    image: UInt8Image | None = None
    latents: Sequence[FloatTensor] = field(default_factory=list)
    """Clean latent of every sample."""


class Streams:
    """One memory per stream, such as a camera. Models that do not look back cost nothing."""

    def __init__(self, card: ModelCard) -> None:
        self._keeps_image = card.second_image is not None
        self._streams: dict[str, LastImage] = {}

    def recall(self, stream: str, rgb: UInt8Image) -> LastImage:
        """The image before `rgb`; one of another size is as good as none."""
        last = self._streams.get(stream, LastImage())
        if last.image is not None and last.image.shape != rgb.shape:
            return LastImage()
        return last

    def remember(self, stream: str, rgb: UInt8Image, latents: Sequence[FloatTensor], noise_mode: str) -> None:
        """Keeps what the next image of the stream needs."""
        if self._keeps_image or noise_mode == "carry":
            image = rgb.copy() if self._keeps_image else None  # the caller may fill its array again
            self._streams[stream] = LastImage(image, latents if noise_mode == "carry" else [])

    def forget(self, stream: str | None = None) -> None:
        """Forgets one stream, None = all."""
        for name in list(self._streams) if stream is None else [stream]:
            self._streams.pop(name, None)
