"""Metres from the floor: the camera's height above it and the direction of gravity say how far each floor pixel is.

A point of the floor X fulfils n . X = h, where n is the unit vector of gravity in the camera's optical frame and h the
height of the camera. With X = z r, r = ((u - cx) / fx, (v - cy) / fy, 1), every pixel that shows floor has the known
depth z = h / (n . r). That is sparse depth like any other, so scale and shift follow from the same robust fit: for a
relative depth v both are linear in z = scale * v + shift, for a disparity in 1/z = scale * v + shift.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.metric_scale.scale import MetricScale, fit_scale, relative_depth
from diffusion_perception_ros.inference.metric_scale.sparse_points import SparsePoints
from diffusion_perception_ros.sample import FloatImage, Intrinsics, Prediction


FLOOR_LABELS = frozenset({"floor", "ground", "road", "carpet", "rug", "pavement", "sidewalk"})
_MOST_PIXELS = 4000
_FEWEST_SHARE = 0.02
"""Share of the image that must show floor."""
_LOWEST_SINE = 0.1
"""Rays flatter than this towards the floor (6 degrees) turn small errors of gravity into large ones of depth."""
_LOWER_PART = 0.4
"""Part of the image that is taken for floor when no model tells."""
_FEWEST_INLIERS = 0.5
"""Share of the floor pixels that must lie on the plane. Half of the image's lower part may be something else."""
_LARGEST_RESIDUAL = 0.1
"""Median relative error of the pixels on the plane, beyond which they are none."""

Gravity = npt.NDArray[np.float64]


def mount_gravity(pitch: float, roll: float) -> Gravity:
    """(3,) direction of gravity in the optical frame (x right, y down, z forward) of a camera mounted at an angle.

    Args:
        pitch, roll: Radians about the axes of the camera's body (REP 103): pitch > 0 looks down, roll > 0 leans to
            the right.
    """
    return np.array([math.sin(roll) * math.cos(pitch), math.cos(roll) * math.cos(pitch), math.sin(pitch)])


def fit_ground_plane(
    prediction: Prediction,
    intrinsics: Intrinsics,
    gravity: Gravity,
    height: float,
    floor: npt.NDArray[np.bool_] | None = None,
    known_shift: float | None = None,
) -> MetricScale:
    """One line from a prediction to metres, by the floor.

    Args:
        prediction: (H, W) with `depth_relative`.
        intrinsics: Of the same image, undistorted.
        gravity: (3,) unit vector in the optical frame.
        height: Metres of the camera above the floor.
        floor: (H, W) pixels that show floor; None takes the lower part of the image, of which half may be others.
        known_shift: As in `fit_scale`.

    Raises:
        InputError: too little floor, a floor that is no plane in the prediction, or one at a single distance.
    """
    relative = relative_depth(prediction)
    points = floor_points(relative, intrinsics, gravity, height, floor)
    scale = replace(fit_scale(prediction, points, known_shift), source="ground_plane")
    if scale.inliers < _FEWEST_INLIERS or scale.residual > _LARGEST_RESIDUAL:
        raise InputError(
            f"only {scale.inliers:.0%} of the floor's pixels lie on one plane, with a median error of "
            f"{scale.residual:.0%} ({_FEWEST_INLIERS:.0%} and {_LARGEST_RESIDUAL:.0%} are allowed): check "
            "camera_height and the direction of gravity"
        )
    return scale


def floor_points(
    relative: FloatImage,
    intrinsics: Intrinsics,
    gravity: Gravity,
    height: float,
    floor: npt.NDArray[np.bool_] | None = None,
) -> SparsePoints:
    """Floor pixels with the depth that they must have, thinned out evenly.

    Raises:
        InputError: fewer than 2 % of the image are floor below the horizon.
    """
    if floor is None:
        floor = np.zeros(relative.shape, np.bool_)
        floor[round((1 - _LOWER_PART) * relative.shape[0]) :] = True
    # thinning both axes keeps the distribution over the floor
    step = max(1, math.isqrt(max(1, np.count_nonzero(floor) // _MOST_PIXELS)))
    rows, columns = (axis * step for axis in np.nonzero(floor[::step, ::step]))
    rays = (columns - intrinsics.cx) / intrinsics.fx, (rows - intrinsics.cy) / intrinsics.fy
    along = gravity[0] * rays[0] + gravity[1] * rays[1] + gravity[2]
    steepness = along / np.sqrt(rays[0] ** 2 + rays[1] ** 2 + 1)
    values = relative[rows, columns]
    usable = (steepness > _LOWEST_SINE) & np.isfinite(values)
    share = np.count_nonzero(usable) * step * step / relative.size
    if share < _FEWEST_SHARE:
        raise InputError(
            f"{share:.1%} of the image show the floor; {_FEWEST_SHARE:.0%} are needed for a scale by camera_height"
        )
    metres = (height / along[usable]).astype(np.float32)
    return SparsePoints(rows[usable], columns[usable], metres, values[usable])
