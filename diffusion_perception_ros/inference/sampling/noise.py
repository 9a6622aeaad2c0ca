"""Where sampling starts: standard normal noise of a fixed seed, so that the same picture gives the same prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.backends import FloatTensor
from diffusion_perception_ros.inference.card import ModelCard


NoiseMode = Literal["fixed", "carry", "random"]
NOISE_MODES: tuple[str, ...] = get_args(NoiseMode)
"""See `NoiseInput.mode`."""
CARRIED_SHARE = 0.1
"""Share of the last picture's clean latent with `carry`; the rest is noise (Lotus, video path of `app.py`)."""


class NoiseSource:
    """Noise for the members of an ensemble, (1, c, h, w) each.

    Member k of seed s is the k-th part of `default_rng(s).standard_normal((members, c, h, w), dtype=float32)`: a
    larger ensemble begins with the members of a smaller one.
    """

    def __init__(self, channels: int, downscale: int, seed: int = 0, zeros: bool = False) -> None:
        """
        Args:
            channels: c.
            downscale: Pixels of the graph's picture per cell.
            seed: Of the `fixed` and `carry` modes.
            zeros: Start from zeros instead of noise.
        """
        self._channels, self._downscale, self._seed = channels, downscale, seed
        self.is_zero = zeros
        self._fixed: FloatTensor | None = None
        self._entropy = np.random.default_rng()

    @classmethod
    def for_card(cls, card: ModelCard) -> NoiseSource | None:
        """What a model needs, None if it takes no noisy latent."""
        seed = card.noise.seed if card.noise else 0
        if card.sampler is not None:
            sampler = card.sampler
            return cls(sampler.latent_channels, sampler.latent_downscale, seed, sampler.start == "zeros")
        return cls(card.noise.channels, card.noise.downscale, seed) if card.noise else None

    @property
    def seed(self) -> int:
        """Of the `fixed` and `carry` modes."""
        return self._seed

    @seed.setter
    def seed(self, seed: int) -> None:
        if seed != self._seed:
            self._seed, self._fixed = seed, None

    def __call__(
        self, width: int, height: int, members: int, mode: str = "fixed", last: Sequence[FloatTensor] = ()
    ) -> list[FloatTensor]:
        """Noise of each member for a graph picture of width x height.

        Args:
            mode: One of `NOISE_MODES`.
            last: For `carry`, the clean latents of the picture before; others than fit are left out.
        """
        shape = (members, self._channels, height // self._downscale, width // self._downscale)
        noise: FloatTensor
        if self.is_zero:
            noise = np.zeros(shape, np.float32)
        elif mode == "random":
            noise = self._entropy.standard_normal(shape, dtype=np.float32)
        else:
            if self._fixed is None or self._fixed.shape != shape:
                self._fixed = np.random.default_rng(self._seed).standard_normal(shape, dtype=np.float32)
            noise = self._fixed
        starts = [noise[index : index + 1] for index in range(members)]
        if mode == "carry" and not self.is_zero:
            share = np.float32(CARRIED_SHARE)
            for index, latent in enumerate(last[:members]):
                if latent.shape == starts[index].shape:
                    starts[index] = (1 - share) * starts[index] + share * latent
        return starts

    def draws(self, member: int, mode: str) -> Callable[[tuple[int, ...]], FloatTensor]:
        """Noise for schedulers that add some at every step: the same for the same member, unless `mode` is random."""
        generator = self._entropy if mode == "random" else np.random.default_rng([self._seed, 1 + member])
        return lambda shape: generator.standard_normal(shape, dtype=np.float32)


def check_noise_mode(mode: str) -> str:
    """The mode.

    Raises:
        InputError: it is none of `NOISE_MODES`.
    """
    if mode not in NOISE_MODES:
        raise InputError(f"unknown noise mode '{mode}': choose one of {', '.join(NOISE_MODES)}")
    return mode
