"""Words that settings and code share."""

from __future__ import annotations

from typing import Literal, get_args


Task = Literal["depth", "disparity", "normals", "semantic", "entity", "mask", "alpha", "pose", "flow", "amodal"]
"""What a diffusion backbone can be trained to draw."""
TASKS: tuple[str, ...] = get_args(Task)
PAIR_TASKS = ("depth", "normals", "semantic")
"""What a network that creates labelled pairs (`joint`) makes besides the image."""
AdaptedTask = Literal["depth", "normals", "semantic", "instances"]
"""What the onestep network can be adapted to."""
EncoderName = Literal["efficientnet-lite0", "efficientnet-lite2"]
"""Encoders with ImageNet weights that can be had."""
MULTIPLE = 32
"""Sides of the onestep network's image are multiples of this."""
