"""What runs a model's graph. A backend is chosen by name; one that cannot run here falls back, and says why."""

from diffusion_perception_ros.inference.backends.backend import (
    BACKENDS,
    ENGINE_PRECISIONS,
    OPTIMIZATIONS,
    Backend,
    BackendUnavailable,
)
from diffusion_perception_ros.inference.backends.selection import build_engines, open_backend


__all__ = [
    "BACKENDS",
    "ENGINE_PRECISIONS",
    "OPTIMIZATIONS",
    "Backend",
    "BackendUnavailable",
    "build_engines",
    "open_backend",
]
