"""Checks that every depth ground truth passes before it is scored."""

from __future__ import annotations

import numpy as np

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.sample import FloatImage


PLAUSIBLE_MEDIAN = (0.02, 400.0)
"""Metres. Millimetres read as metres, or metres as millimetres, put the median of any real scene outside."""


def check_depth(depth: FloatImage, shape: tuple[int, ...], name: str) -> FloatImage:
    """The depth with everything that is not a distance set to NaN.

    Args:
        depth: (h, w) metres, any value where there is no data.
        shape: (H, W) or (H, W, 3) of the colour picture.
        name: the file or frame, for the message.

    Raises:
        InputError: another size than the picture, no pixel with data, or a unit that is 1000 times off.
    """
    if depth.shape != shape[:2]:
        raise InputError(
            f"{name} is {depth.shape[1]}x{depth.shape[0]} but its picture is {shape[1]}x{shape[0]}: "
            "depth must be registered to the picture"
        )
    with np.errstate(invalid="ignore"):
        valid = np.isfinite(depth) & (depth > 0)
    if not valid.any():
        raise InputError(f"{name} has no pixel with depth")
    median = float(np.median(depth[valid]))
    if not PLAUSIBLE_MEDIAN[0] <= median <= PLAUSIBLE_MEDIAN[1]:
        raise InputError(
            f"{name} has a median depth of {median:g} m: the unit looks 1000 times off, correct 'depth_scale_m' "
            "(0.001 for millimetres, 1 for metres)"
        )
    return np.where(valid, depth, np.nan).astype(np.float32)
