"""Points of another sensor as sparse depth in the camera's image."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import PointCloud2, PointField

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.ros.transforms import Matrix, pose_matrix
from diffusion_perception_ros.sample import FloatImage, Intrinsics


OPTICAL_FROM_BODY = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
"""A camera's optical frame (x right, y down, z forward) from its body (x forward, y left, z up), REP 103."""
_SAME_PLACE = 0.01
"""Metres between sensor and camera up to which both see the same surfaces."""
_HIDDEN = 1.15
"""Depth over that of the nearest point around it, beyond which a point is taken to be hidden from the camera."""
_WINDOW = (2, 24)
"""Pixels: the least and the farthest distance of a point that may hide another."""


def extrinsics_matrix(extrinsics: list[float]) -> Matrix:
    """(4, 4) from the sensor's frame to the optical frame, of the parameter `sparse_depth_extrinsics`.

    Args:
        extrinsics: Pose of the sensor's frame in the camera's body frame (x forward, y left, z up), see
            `transforms.pose_matrix`.
    """
    matrix: Matrix = OPTICAL_FROM_BODY @ pose_matrix(extrinsics)
    return matrix


def cloud_points(message: PointCloud2) -> npt.NDArray[np.float32]:
    """(N, 3) x y z of a PointCloud2, in its frame, unorganised.

    Raises:
        InputError: no float32 fields x, y and z, or less data than the size says.
    """
    offsets = {field.name: field.offset for field in message.fields if field.datatype == PointField.FLOAT32}
    if not {"x", "y", "z"} <= offsets.keys():
        raise InputError("sparse depth cloud has no float32 fields x, y, z")
    needed = message.height * message.row_step
    if len(message.data) < needed or message.row_step < message.width * message.point_step:
        raise InputError(f"sparse depth cloud: {len(message.data)} bytes of data are fewer than {needed}")
    order = ">" if message.is_bigendian else "<"
    try:
        kind = np.dtype(
            {
                "names": ["x", "y", "z"],
                "formats": [f"{order}f4"] * 3,
                "offsets": [offsets[name] for name in "xyz"],
                "itemsize": message.point_step,
            }
        )
    except ValueError as error:
        raise InputError(f"sparse depth cloud: fields do not fit into point_step {message.point_step}") from error
    if needed == 0:
        return np.empty((0, 3), np.float32)
    data = np.frombuffer(message.data, np.uint8, count=needed)
    points: npt.NDArray[np.void] = np.ndarray(
        (message.height, message.width), kind, data, strides=(message.row_step, message.point_step)
    ).reshape(-1)
    return np.stack([points[name].astype(np.float32) for name in "xyz"], axis=-1)


def project_points(
    points: npt.NDArray[np.float32], intrinsics: Intrinsics, optical_from_sensor: Matrix | None = None
) -> FloatImage:
    """Points as the camera sees them.

    Args:
        points: (N, 3) metres in the sensor's frame.
        intrinsics: Of the image, undistorted.
        optical_from_sensor: (4, 4); None if the points are in the optical frame already.

    Returns:
        (H, W) metres along the optical axis: z of the nearest on each pixel, NaN where there is none. Points that
        the camera cannot see, because nearer ones around them hide them, are left out where the sensor looks from
        another place.
    """
    finite = points[np.isfinite(points).all(axis=1)]
    moved = optical_from_sensor is not None
    if optical_from_sensor is not None:
        finite = finite @ optical_from_sensor[:3, :3].T.astype(np.float32) + optical_from_sensor[:3, 3].astype(
            np.float32
        )
        moved = bool(np.linalg.norm(optical_from_sensor[:3, 3]) > _SAME_PLACE)
    depth = np.full((intrinsics.height, intrinsics.width), np.inf, np.float32)
    x, y, z = finite[finite[:, 2] > 0].T
    columns = np.rint(intrinsics.fx * x / z + intrinsics.cx)
    rows = np.rint(intrinsics.fy * y / z + intrinsics.cy)
    inside = (columns >= 0) & (columns < intrinsics.width) & (rows >= 0) & (rows < intrinsics.height)
    pixels = rows[inside].astype(np.intp), columns[inside].astype(np.intp)
    np.minimum.at(depth, pixels, z[inside])
    if moved:
        depth[_hidden(depth)] = np.inf
    depth[np.isinf(depth)] = np.nan
    return depth


def _hidden(depth: FloatImage) -> npt.NDArray[np.bool_]:
    """(H, W) points behind a surface whose points are around them; +Inf where there is no point."""
    count = int(np.count_nonzero(np.isfinite(depth)))
    spacing = math.sqrt(depth.size / max(count, 1))
    reach = round(min(max(spacing, _WINDOW[0]), _WINDOW[1]))
    window = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    finite = np.where(np.isinf(depth), np.float32(1e9), depth)
    hidden: npt.NDArray[np.bool_] = finite > _HIDDEN * cv2.erode(finite, window)
    return hidden
