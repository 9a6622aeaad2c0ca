"""The estimator on the small models of `model_factory`, and pictures of one colour for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from model_factory import write_model

from diffusion_perception_ros.inference.estimator import Estimator


BLACK, RED, GREEN, BLUE = (0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)


def load_tiny(folder: Path, **options: Any) -> Estimator:
    """The model that `write_model` writes with these options, on the CPU."""
    return Estimator.load(write_model(folder / "tiny", **options), backend="cpu", threads=1)


def picture(width: int, height: int, color: tuple[int, int, int] = BLACK) -> np.ndarray:
    """(height, width, 3), all of one colour."""
    return np.full((height, width, 3), color, np.uint8)
