"""How the estimator samples: parameters of the node where they say something, else what the model's card says."""

from __future__ import annotations

from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.inference.tiling import Tile
from diffusion_perception_ros.ros.parameters import PerceptionParameters


def check_sampling(estimator: Estimator, settings: PerceptionParameters) -> None:
    """Whether the model can sample so.

    Raises:
        InputError: it cannot; the message says why.
    """
    estimator.check_sampling(_steps(estimator, settings), _ensemble_size(estimator, settings))
    estimator.check_noise(_noise_mode(estimator, settings))
    _tile(settings)


def apply_sampling(estimator: Estimator, settings: PerceptionParameters) -> None:
    """Makes the next predictions follow settings that were checked."""
    estimator.steps = _steps(estimator, settings)
    estimator.ensemble_size = _ensemble_size(estimator, settings)
    estimator.noise_mode = _noise_mode(estimator, settings)
    estimator.tile = _tile(settings)


def _steps(estimator: Estimator, settings: PerceptionParameters) -> int:
    sampler = estimator.card.sampler
    return settings.steps or (sampler.num_inference_steps if sampler else 1)


def _ensemble_size(estimator: Estimator, settings: PerceptionParameters) -> int:
    sampler = estimator.card.sampler
    return settings.ensemble_size or (sampler.ensemble_size if sampler else 1)


def _noise_mode(estimator: Estimator, settings: PerceptionParameters) -> str:
    if settings.noise_mode != "card":
        return settings.noise_mode
    return estimator.card.noise.mode if estimator.card.noise else "fixed"


def _tile(settings: PerceptionParameters) -> Tile | None:
    return Tile.parse(settings.tile) if settings.tile else None
