"""What a CameraInfo says about an image of a given size: one rule for the node, bags and every command.

K and P hold for the full sensor. The image shows its region of interest (or all of it), binned, and perhaps resized by
a node that left `camera_info` as it was; only the aspect ratio must agree.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.sample import Intrinsics


_PINHOLE, _FISHEYE = (4, 5, 8, 12, 14), (4,)
DISTORTION_MODELS: dict[str, tuple[int, ...]] = {
    "plumb_bob": _PINHOLE,
    "rational_polynomial": _PINHOLE,
    "equidistant": _FISHEYE,
    "fisheye": _FISHEYE,
}
"""Lens models that can be undone, and how many coefficients OpenCV takes of each, which tells it the model."""
_ALIASES = {
    "plumb bob": "plumb_bob",
    "radtan": "plumb_bob",
    "brown_conrady": "plumb_bob",
    "rational": "rational_polynomial",
    "thin_prism": "rational_polynomial",
    "kannala_brandt": "equidistant",
    "kannala_brandt4": "equidistant",
}


class ImageWindow(NamedTuple):
    """The part of the full sensor image that the image shows, in full-resolution pixels."""

    left: int
    top: int
    width: int
    height: int


class Distortion(NamedTuple):
    """A lens as OpenCV takes it."""

    is_fisheye: bool
    """For `cv2.fisheye`, else for `cv2.undistortPoints` and its like."""
    coefficients: npt.NDArray[np.float64]
    """As many as OpenCV accepts."""


def image_intrinsics(info: Any, width: int, height: int, rectified: bool = False) -> Intrinsics:
    """Pinhole camera of an image that belongs to `info`, whatever region, binning or resizing lies between them.

    Args:
        info: a CameraInfo message of rclpy or rosbags.
        width: of the image in pixels.
        height: of the image in pixels.
        rectified: take the camera matrix from P, not from K.

    Raises:
        InputError: the camera is not calibrated, its matrix is not finite, its distortion cannot be undone, or the
            aspect ratios disagree.
    """
    values = (
        (info.p[0], info.p[5], info.p[2], info.p[6]) if rectified else (info.k[0], info.k[4], info.k[2], info.k[5])
    )
    fx, fy, cx, cy = (float(value) for value in values)
    name = "P" if rectified else "K"
    if not all(math.isfinite(value) for value in (fx, fy, cx, cy)):
        raise InputError(
            f"camera_info of '{info.header.frame_id}': {name} is not finite: fx fy cx cy = {fx, fy, cx, cy}"
        )
    if fx <= 0 or fy <= 0:
        raise InputError(
            f"camera_info of '{info.header.frame_id}': the camera is not calibrated ({name}[0] is {fx}); "
            "calibrate it to get metric depth and point clouds"
        )
    if not rectified:
        distortion_of(info)
    window = image_window(info, width, height)
    camera = Intrinsics(int(info.width) or width, int(info.height) or height, fx, fy, cx, cy)
    try:
        return camera.cropped(*window).resized(width, height)
    except ValueError as error:  # numbers that are no longer finite or positive in the image's size
        raise InputError(f"camera_info of '{info.header.frame_id}': {error}") from error


def image_window(info: Any, width: int, height: int) -> ImageWindow:
    """What an image of width x height shows of the full sensor.

    Raises:
        InputError: its aspect ratio is neither the sensor's nor the region's.
    """
    region = info.roi
    whole = ImageWindow(0, 0, int(info.width) or width, int(info.height) or height)
    window = whole
    if region.width and region.height:
        window = ImageWindow(*(int(getattr(region, name)) for name in ("x_offset", "y_offset", "width", "height")))
    binning = max(int(info.binning_x), 1), max(int(info.binning_y), 1)
    binned = window.width / binning[0], window.height / binning[1]
    # Binning and resizing round each side to whole pixels.
    if abs(binned[1] / binned[0] * width - height) > 1 + height / binned[1]:
        raise InputError(
            f"camera_info of '{info.header.frame_id}' is for images of {binned[0]:g}x{binned[1]:g}, "
            f"which the image of {width}x{height} cannot come from"
        )
    return window


def distortion_of(info: Any) -> Distortion | None:
    """The lens of a CameraInfo; None for one without distortion.

    Drivers pad the coefficients with zeros: only those before them must be as many as OpenCV takes.

    Raises:
        InputError: a model or a number of coefficients that OpenCV cannot undo.
    """
    coefficients = [float(value) for value in info.d]
    while coefficients and coefficients[-1] == 0:
        coefficients.pop()
    if not coefficients:
        return None
    name = str(info.distortion_model).strip().lower()
    lengths = DISTORTION_MODELS.get(_ALIASES.get(name, name), ())
    length = next((length for length in lengths if length >= len(coefficients)), None)
    is_short = len(info.d) < min(lengths, default=0)  # OpenCV would refuse it: nobody knows what is missing
    if length is None or is_short or not all(math.isfinite(value) for value in coefficients):
        raise InputError(
            f"camera_info of '{info.header.frame_id}': distortion '{info.distortion_model}' with D = "
            f"{[float(value) for value in info.d]} is not one of {', '.join(DISTORTION_MODELS)}; rectify the images "
            "and set 'rectified'"
        )
    padded = np.zeros(length)
    padded[: len(coefficients)] = coefficients
    return Distortion(lengths is _FISHEYE, padded)
