"""How `diffusion-perception bench` measures: variants take turns, so that a busy machine slows all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np

from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.sample import Intrinsics, UInt8Image


WIDTH, HEIGHT = 640, 480
"""Of the pictures that are measured with."""


@dataclass
class Comparison:
    """Variants that do the same thing, the reference last."""

    title: str
    unit: str
    values: dict[str, float]
    """Variant to median."""
    larger_is_better: bool = False
    notes: list[str] = field(default_factory=list)

    def ratios(self) -> dict[str, float]:
        """How many times better than the reference each variant is."""
        reference = list(self.values.values())[-1]
        return {
            name: value / reference if self.larger_is_better else reference / value
            for name, value in self.values.items()
        }


def take_turns(variants: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Median milliseconds of each variant, measured in alternation after one run to warm up."""
    for run in variants.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in variants}
    deadline = time.perf_counter() + seconds * len(variants)
    while time.perf_counter() < deadline:
        for name, run in variants.items():
            start = time.perf_counter()
            run()
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: float(np.median(values)) for name, values in times.items()}


def comparison_of(seconds: float, title: str, variants: Mapping[str, Callable[[], object]]) -> Comparison:
    """Measures what runs on this machine; a variant that does not is noted with its reason."""
    usable, notes = {}, []
    for name, run in variants.items():
        try:
            run()
            usable[name] = run
        except Exception as error:  # other packages fail in their own ways
            notes.append(f"{name} does not work here: {error}")
    return Comparison(f"{title}, {WIDTH}x{HEIGHT}", "ms", take_turns(usable, seconds), notes=notes)


def bench_picture(width: int = WIDTH, height: int = HEIGHT) -> UInt8Image:
    """Smooth shapes with noise: neither a flat colour nor incompressible."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (height // 40, width // 40, 3)).astype(np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + rng.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)


def bench_camera() -> Intrinsics:
    """A camera of 63° for `bench_picture`."""
    return Intrinsics(WIDTH, HEIGHT, 525.0, 525.0, 319.5, 239.5)


def prediction(
    model: Estimator, picture: UInt8Image, camera: Intrinsics, tasks: set[str] | None
) -> Callable[[], object]:
    """One prediction of some tasks, None = all."""
    return lambda: model.predict(picture, camera, tasks)
