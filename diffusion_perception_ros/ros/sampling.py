"""How the estimator samples: parameters of the node where they say something, else what the model's card says."""

from __future__ import annotations

from typing import Any

from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.inference.preprocess import input_size_of
from diffusion_perception_ros.inference.remote_estimator import RemoteEstimator
from diffusion_perception_ros.inference.tiling import Tile
from diffusion_perception_ros.ros.parameters import PerceptionParameters


def check_sampling(estimator: Estimator | RemoteEstimator, settings: PerceptionParameters) -> None:
    """Whether the model can sample so, and take images of that size.

    Raises:
        InputError: it cannot; the message says why.
    """
    arguments = sampling_arguments(settings)
    arguments.pop("tile")
    input_size_of(estimator.card, arguments.pop("input_area"))
    estimator.check_sampling(**arguments)


def sampling_arguments(settings: PerceptionParameters) -> dict[str, Any]:
    """The node's parameters as arguments of `Estimator.predict`.

    Raises:
        InputError: the tile is none.
    """
    return {
        "steps": settings.steps or None,
        "ensemble_size": settings.ensemble_size or None,
        "noise_mode": None if settings.noise_mode == "card" else settings.noise_mode,
        "input_area": settings.input_area or None,
        "tile": Tile.parse(settings.tile) if settings.tile else None,
    }
