"""What a network in training says about a batch, whatever kind of network it is: what validation and pictures need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor


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
