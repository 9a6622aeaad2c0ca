"""Does a GPU compute what the CPU computes? Checked on a stored image when a model is opened.

TensorRT 10.3, which JetPack 6.2 has, gives wrong depth on some graphs without any error message; a robot must not find
that out by driving.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

import cv2
import numpy as np

from diffusion_perception_ros.inference.tensor import FloatTensor
from diffusion_perception_ros.sample import UInt8Image


_PICTURE = "parity_picture.jpg"
"""640x480, a room of our own synthetic world."""
_MOST_MEAN, _MOST_TAIL = 0.02, 0.1
"""Allowed share of the output's spread. A wrong engine is off by the spread itself."""
_TAIL = 99.0


@dataclass(frozen=True)
class Difference:
    """One output, compared with the CPU's. All figures are shares of the CPU output's spread."""

    tensor: str
    mean: float
    """Mean absolute difference."""
    tail: float
    """What 99 % of the values stay below."""
    finite: bool
    """No NaN or infinity where the CPU has none."""

    @property
    def is_acceptable(self) -> bool:
        """Close enough to be the same model."""
        return self.finite and self.mean <= _MOST_MEAN and self.tail <= _MOST_TAIL

    def __str__(self) -> str:
        if not self.finite:
            return f"'{self.tensor}' has NaN or infinite values"
        return f"'{self.tensor}' differs by {self.mean:.1%} of its spread on average, {self.tail:.1%} at worst"


def parity_image() -> UInt8Image:
    """The stored image, (480, 640, 3) uint8 RGB."""
    encoded = np.frombuffer(resources.files(__package__).joinpath(_PICTURE).read_bytes(), np.uint8)
    image = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert image is not None
    return np.ascontiguousarray(image[..., ::-1], np.uint8)


def compare_outputs(actual: Sequence[FloatTensor], reference: Mapping[str, FloatTensor]) -> list[Difference]:
    """Compares the outputs of two backends on the same inputs.

    Args:
        actual: In the order of `reference`.
        reference: What the CPU computes, by name.
    """
    return [_compare(name, tensor, actual[index]) for index, (name, tensor) in enumerate(reference.items())]


def _compare(name: str, reference: FloatTensor, actual: FloatTensor) -> Difference:
    if actual.shape != reference.shape:
        return Difference(name, float("inf"), float("inf"), finite=False)
    known = np.isfinite(reference)
    if not np.isfinite(actual[known]).all():
        return Difference(name, float("inf"), float("inf"), finite=False)
    if not known.any():
        return Difference(name, 0.0, 0.0, finite=True)
    values = reference[known].astype(np.float64)
    low, high = np.percentile(values, [2.0, 98.0])
    # Flat outputs have no spread, but half precision rounds them all the same.
    spread = max(high - low, 0.05 * float(np.abs(values).max()), 1e-6)
    difference = np.abs(actual[known] - values) / spread
    return Difference(name, float(difference.mean()), float(np.percentile(difference, _TAIL)), finite=True)
