"""What CameraInfo says about an image of a given size: intrinsics to compute with, and a CameraInfo to publish."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import NamedTuple

import numpy as np
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.sample import Intrinsics


DISTORTION_MODELS = {
    "plumb_bob": (4, 5),
    "rational_polynomial": (8, 12, 14),
    "equidistant": (4,),
    "fisheye": (4,),
}
"""Lens models that can be undone, and how many coefficients each may have."""


class _Window(NamedTuple):
    """The part of the full sensor image that the picture shows, in full-resolution pixels."""

    left: int
    top: int
    width: int
    height: int


def image_intrinsics(info: CameraInfo, width: int, height: int, rectified: bool = False) -> Intrinsics:
    """Pinhole camera of an image that belongs to `info`, whatever region, binning or resizing lies between them.

    K and P of a CameraInfo hold for the full sensor resolution. The image shows the region of interest (or all),
    binned, and perhaps resized by a node that left `camera_info` as it was; only the aspect ratio must agree.

    Args:
        info: the camera's message.
        width: of the image in pixels.
        height: of the image in pixels.
        rectified: take the camera matrix from P, not from K.

    Raises:
        InputError: the camera is not calibrated, its matrix is not finite, or the aspect ratios disagree.
    """
    fx, fy, cx, cy = (info.p[0], info.p[5], info.p[2], info.p[6]) if rectified else _from_k(info)
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
        _check_distortion(info)
    window = _window(info, width, height)
    camera = Intrinsics(info.width or width, info.height or height, fx, fy, cx, cy)
    return camera.cropped(*window).resized(width, height)


def scaled_camera_info(info: CameraInfo, header: Header, width: int, height: int) -> CameraInfo:
    """Copy of `info` for an output image of width x height that shows what the camera's image shows.

    Region of interest and binning are applied to K and P and then cleared, so that readers cannot apply them again.

    Raises:
        InputError: the aspect ratios disagree.
    """
    left, top, window_width, window_height = _window(info, width, height)
    sx, sy = width / window_width, height / window_height
    # Pixel centres are integers: resizing scales about the corner (-0.5, -0.5).
    scale = np.array([[sx, 0, sx * (0.5 - left) - 0.5], [0, sy, sy * (0.5 - top) - 0.5], [0, 0, 1]])
    scaled = deepcopy(info)
    scaled.header, scaled.width, scaled.height = header, width, height
    # An uncalibrated camera (K[0] = 0) stays one; K[2] alone must not start to mean something.
    if info.k[0] != 0:
        scaled.k = (scale @ np.reshape(info.k, (3, 3))).ravel()
    if info.p[0] != 0:
        scaled.p = (scale @ np.reshape(info.p, (3, 4))).ravel()
    scaled.binning_x = scaled.binning_y = 0
    scaled.roi = type(info.roi)()
    return scaled


def _check_distortion(info: CameraInfo) -> None:
    """D must be something that OpenCV can undo, for the point cloud."""
    if not any(info.d):
        return
    if len(info.d) not in DISTORTION_MODELS.get(info.distortion_model, ()) or not np.isfinite(info.d).all():
        raise InputError(
            f"camera_info of '{info.header.frame_id}': distortion '{info.distortion_model}' with D = {list(info.d)} "
            f"is not one of {', '.join(DISTORTION_MODELS)}; rectify the images and set 'rectified'"
        )


def _from_k(info: CameraInfo) -> tuple[float, float, float, float]:
    return info.k[0], info.k[4], info.k[2], info.k[5]


def _window(info: CameraInfo, width: int, height: int) -> _Window:
    region = info.roi
    if region.width and region.height:
        window = _Window(region.x_offset, region.y_offset, region.width, region.height)
    else:
        window = _Window(0, 0, info.width or width, info.height or height)
    binned_width = window.width / max(info.binning_x, 1)
    binned_height = window.height / max(info.binning_y, 1)
    # Binning and resizing round each side to whole pixels.
    if abs(binned_height / binned_width * width - height) > 1 + height / binned_height:
        raise InputError(
            f"camera_info of '{info.header.frame_id}' is for images of {binned_width:g}x{binned_height:g}, "
            f"which the image of {width}x{height} cannot come from"
        )
    return window
