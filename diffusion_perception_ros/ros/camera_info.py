"""A CameraInfo to publish with an output image of any size."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from diffusion_perception_ros.inference.camera_model import image_window


def scaled_camera_info(info: CameraInfo, header: Header, width: int, height: int) -> CameraInfo:
    """Copy of `info` for an output image of width x height that shows what the camera's image shows.

    Region of interest and binning are applied to K and P and then cleared, so that readers cannot apply them again.

    Raises:
        InputError: the aspect ratios disagree.
    """
    left, top, window_width, window_height = image_window(info, width, height)
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
