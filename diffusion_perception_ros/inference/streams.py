"""What is remembered of the last picture of each video, for models that look back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from diffusion_perception_ros.inference.backends import FloatTensor
from diffusion_perception_ros.inference.card import ModelCard
from diffusion_perception_ros.sample import UInt8Image


@dataclass
class LastPicture:
    """Of one stream; empty before its first picture."""

    picture: UInt8Image | None = None
    latents: Sequence[FloatTensor] = field(default_factory=list)
    """Clean latent of every member."""


class Streams:
    """One memory per stream, such as a camera. Models that do not look back cost nothing."""

    def __init__(self, card: ModelCard) -> None:
        self._keeps_picture = card.second_image is not None
        self._streams: dict[str, LastPicture] = {}

    def recall(self, stream: str, rgb: UInt8Image) -> LastPicture:
        """The picture before `rgb`; one of another size is as good as none."""
        last = self._streams.get(stream, LastPicture())
        if last.picture is not None and last.picture.shape != rgb.shape:
            return LastPicture()
        return last

    def remember(self, stream: str, rgb: UInt8Image, latents: Sequence[FloatTensor], noise_mode: str) -> None:
        """Keeps what the next picture of the stream needs."""
        if self._keeps_picture or noise_mode == "carry":
            picture = rgb.copy() if self._keeps_picture else None  # the caller may fill its array again
            self._streams[stream] = LastPicture(picture, latents if noise_mode == "carry" else [])

    def forget(self, stream: str | None = None) -> None:
        """Forgets one stream, None = all."""
        for name in list(self._streams) if stream is None else [stream]:
            self._streams.pop(name, None)
