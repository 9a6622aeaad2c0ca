"""How a prediction is sampled: what the caller asks for, completed by the model's card and checked against it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.card import ModelCard
from diffusion_perception_ros.inference.sampling.ensemble import MERGINGS, Merging
from diffusion_perception_ros.inference.sampling.noise import NOISE_MODES, NoiseMode
from diffusion_perception_ros.inference.sampling.schedulers import make_scheduler


@dataclass(frozen=True)
class Sampling:
    """Settings that the model of a card can follow; `resolve_sampling` makes them."""

    steps: int = 1
    """Denoising steps."""
    ensemble_size: int = 1
    """Predictions from different noise that are merged into one."""
    noise_mode: NoiseMode = "fixed"
    seed: int = 0
    """Of the noise modes `fixed` and `carry`."""
    merging: Merging = "aligned_median"
    """How the depth of an ensemble is merged."""


def resolve_sampling(
    card: ModelCard,
    steps: int | None = None,
    ensemble_size: int | None = None,
    noise_mode: str | None = None,
    seed: int | None = None,
    merging: str | None = None,
) -> Sampling:
    """The settings of a prediction; None = what the card says.

    Raises:
        InputError: the model cannot sample so, or a name or number is none of those allowed.
    """
    sampler, noise = card.sampler, card.noise
    if steps is None:
        steps = sampler.num_inference_steps if sampler else 1
    if ensemble_size is None:
        ensemble_size = sampler.ensemble_size if sampler else 1
    if noise_mode is None:
        noise_mode = noise.mode if noise else "fixed"
    takes_noise = sampler.start == "noise" if sampler else noise is not None
    if sampler is not None:
        make_scheduler(sampler, steps)
    elif steps != 1:
        raise InputError(f"model '{card.name}' predicts in one step; export it with more to get {steps}")
    if ensemble_size < 1:
        raise InputError(f"the ensemble size must be at least 1, got {ensemble_size}")
    if ensemble_size > 1 and not takes_noise:
        raise InputError(
            f"model '{card.name}' starts from no noise: all {ensemble_size} samples of an ensemble would be equal"
        )
    _check_noise_mode(card, noise_mode, takes_noise)
    if seed is not None and sampler is None and noise is None:
        raise InputError(f"model '{card.name}' takes no noise: it has no seed")
    if merging is not None and merging not in MERGINGS:
        raise InputError(f"unknown merging '{merging}': choose one of {', '.join(MERGINGS)}")
    return Sampling(
        steps,
        ensemble_size,
        cast(NoiseMode, noise_mode),
        seed if seed is not None else noise.seed if noise else 0,
        cast(Merging, merging or "aligned_median"),
    )


def _check_noise_mode(card: ModelCard, mode: str, takes_noise: bool) -> None:
    if mode not in NOISE_MODES:
        raise InputError(f"unknown noise mode '{mode}': choose one of {', '.join(NOISE_MODES)}")
    if mode != "fixed" and not takes_noise:
        raise InputError(f"model '{card.name}' takes no noise: there is no noise mode '{mode}'")
    if mode == "carry" and card.sampler is None and not (card.noise and card.noise.latent_tensor):
        raise InputError(f"model '{card.name}' does not tell its latent: there is no noise mode 'carry'")
