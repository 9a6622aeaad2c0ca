"""What a network in training says about a batch, whatever kind of network it is: what validation and pictures need."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from diffusion_perception_ros.sample import FloatImage, UInt16Image


@dataclass
class Estimates:
    """N pictures of H x W pixels; None for tasks that the network does not have."""

    depth: Tensor | None = None
    """(N, H, W), `depth_quantity` says of what; NaN where metres cannot be told for want of a focal length."""
    depth_quantity: Literal["metric_depth", "relative_depth", "relative_disparity"] = "metric_depth"
    normals: Tensor | None = None
    """(N, 3, H, W), optical frame, any length."""
    semantic: Tensor | None = None
    """(N, H/2, W/2) int64 class ids."""
    instances: list[UInt16Image] | None = None
    """N times (H, W), 0 = none."""
    flow: Tensor | None = None
    """(N, 2, H, W) pixels to the place in the picture before."""
    alpha: Tensor | None = None
    """(N, H, W) opacity in [0, 1]."""
    mask: Tensor | None = None
    """(N, H, W), from 0.5 on inside the object that was pointed at."""
    objects: Tensor | None = None
    """(N,) which object that was: ids of the batch, 0 = none."""
    amodal: Tensor | None = None
    """(N, H, W), from 0.5 on inside the object, hidden or not."""
    keypoints: list[FloatImage] | None = None
    """N times (K, 4): u, v, confidence in [0, 1], number of the joint."""
    drawings: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Task → predicted and true annotation, (N, 3, H, W) in [-1, 1], of tasks that are looked at as they are drawn."""

    def add(self, other: Estimates) -> None:
        """Takes over what the other has and this one lacks."""
        if self.depth is None:
            self.depth_quantity = other.depth_quantity
        for name, value in vars(other).items():
            if getattr(self, name) is None:
                setattr(self, name, value)
