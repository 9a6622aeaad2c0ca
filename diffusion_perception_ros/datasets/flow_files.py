"""Optical flow from the files of public data sets.

KITTI: 16-bit PNG (development kit of its stereo and flow benchmark of 2015). Middlebury: `.flo` (README of its code).
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.picture_files import read_values
from diffusion_perception_ros.sample import FloatImage


KITTI_ZERO, KITTI_STEPS = 2**15, 64.0
"""Stored value of no motion, and stored steps per pixel."""
UNKNOWN_FLOW = 1e9
"""Middlebury: pixels from which on a vector means that it is not known."""


def read_flow(path: Path) -> FloatImage:
    """(H, W, 2) vectors in pixels, right and down, NaN where not known: `.flo` of Middlebury, PNG of KITTI.

    Raises:
        InputError: missing, unreadable, or neither format.
    """
    if path.suffix.lower() == ".flo":
        return _read_middlebury(path)
    stored = read_values(path)
    if stored.dtype != np.uint16 or stored.ndim != 3 or stored.shape[2] != 3:
        bits, channels = 8 * stored.dtype.itemsize, 1 if stored.ndim == 2 else stored.shape[2]
        raise InputError(
            f"{path} is not a flow of KITTI: it has {channels} channel(s) of {bits} bits, three of 16 are needed "
            "(a picture of coloured flow cannot be scored); flow of Middlebury ends in .flo"
        )
    valid, v, u = np.moveaxis(stored.astype(np.float32), 2, 0)  # OpenCV has the channels in the order B, G, R
    flow = (np.stack([u, v], axis=-1) - KITTI_ZERO) / np.float32(KITTI_STEPS)
    flow[valid == 0] = np.nan
    return flow.astype(np.float32)


def _read_middlebury(path: Path) -> FloatImage:
    if not path.is_file():
        raise InputError(f"{path} cannot be read: there is no such file")
    flow = cv2.readOpticalFlow(str(path))
    if flow is None or not flow.size:
        raise InputError(f"{path} is not a whole .flo file: it begins with 'PIEH', width and height, then all vectors")
    vectors: FloatImage = np.array(flow, np.float32)
    with np.errstate(invalid="ignore"):
        known = np.abs(vectors).max(axis=2) < UNKNOWN_FLOW  # false where a component is NaN, too
    vectors[~known] = np.nan
    return vectors
