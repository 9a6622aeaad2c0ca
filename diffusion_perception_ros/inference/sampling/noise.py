"""Where sampling starts: standard normal noise of a fixed seed, so that the same image gives the same prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np

from diffusion_perception_ros.inference.card import ModelCard
from diffusion_perception_ros.inference.tensor import FloatTensor


NoiseMode = Literal["fixed", "carry", "random"]
NOISE_MODES: tuple[str, ...] = get_args(NoiseMode)
"""See `NoiseInput.mode`."""
CARRIED_SHARE = 0.1
"""Share of the last image's clean latent with `carry`; the rest is noise (Lotus, video path of `app.py`)."""


class NoiseSource:
    """Noise for the samples of an ensemble, (1, c, h, w) each.

    Sample k of seed s is the k-th part of `default_rng(s).standard_normal((count, c, h, w), dtype=float32)`: a larger
    ensemble begins with the samples of a smaller one.
    """

    def __init__(self, channels: int, downscale: int, zeros: bool = False) -> None:
        """
        Args:
            channels: c.
            downscale: Pixels of the graph's image per cell.
            zeros: Start from zeros instead of noise.
        """
        self._channels, self._downscale = channels, downscale
        self._is_zero = zeros
        self._fixed: FloatTensor | None = None
        self._fixed_seed = 0
        self._entropy = np.random.default_rng()

    @classmethod
    def for_card(cls, card: ModelCard) -> NoiseSource | None:
        """What a model needs, None if it takes no noisy latent."""
        if card.sampler is not None:
            sampler = card.sampler
            return cls(sampler.latent_channels, sampler.latent_downscale, sampler.start == "zeros")
        return cls(card.noise.channels, card.noise.downscale) if card.noise else None

    def __call__(
        self,
        width: int,
        height: int,
        count: int,
        mode: NoiseMode = "fixed",
        seed: int = 0,
        last: Sequence[FloatTensor] = (),
    ) -> list[FloatTensor]:
        """Noise of each ensemble sample for a graph image of width x height.

        Args:
            width, height: Of the graph's image.
            count: Ensemble samples.
            mode: See `NoiseInput.mode`.
            seed: Of the modes `fixed` and `carry`.
            last: For `carry`, the clean latents of the image before; others than fit are left out.
        """
        shape = (count, self._channels, height // self._downscale, width // self._downscale)
        noise: FloatTensor
        if self._is_zero:
            noise = np.zeros(shape, np.float32)
        elif mode == "random":
            noise = self._entropy.standard_normal(shape, dtype=np.float32)
        else:
            if self._fixed is None or self._fixed.shape != shape or self._fixed_seed != seed:
                self._fixed = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
                self._fixed_seed = seed
            noise = self._fixed
        starts = [noise[index : index + 1] for index in range(count)]
        if mode == "carry" and not self._is_zero:
            share = np.float32(CARRIED_SHARE)
            for index, latent in enumerate(last[:count]):
                if latent.shape == starts[index].shape:
                    starts[index] = (1 - share) * starts[index] + share * latent
        return starts

    def draws(self, index: int, mode: NoiseMode, seed: int = 0) -> Callable[[tuple[int, ...]], FloatTensor]:
        """Noise for schedulers that add some at every step: the same for the same sample, unless `mode` is random."""
        generator = self._entropy if mode == "random" else np.random.default_rng([seed, 1 + index])
        return lambda shape: generator.standard_normal(shape, dtype=np.float32)
