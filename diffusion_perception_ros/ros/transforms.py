"""tf2 where it is installed: transforms between frames at a stamp."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from builtin_interfaces.msg import Time as TimeMessage
from rclpy.node import Node
from rclpy.time import Time

from diffusion_perception_ros.errors import InputError


try:
    import tf2_ros
except ImportError:  # the wheels of ROS 2 have none
    tf2_ros = None

SHORTEST_QUATERNION = 1e-6
"""Length from which a quaternion has a direction."""

Matrix = npt.NDArray[np.float64]


class Transforms:
    """Listens to /tf and /tf_static from its construction on."""

    def __init__(self, node: Node) -> None:
        self._buffer = None
        if tf2_ros is not None:
            self._buffer = tf2_ros.Buffer()
            self._listener = tf2_ros.TransformListener(self._buffer, node)

    def between(self, target: str, source: str, stamp: TimeMessage) -> Matrix:
        """(4, 4) from coordinates in frame `source` to those in frame `target`, at a time.

        Raises:
            InputError: tf2 is not installed, or does not know.
        """
        if self._buffer is None:
            raise InputError(
                f"frame '{source}' is not the image's '{target}' and tf2_ros is not installed: "
                "give the parameter sparse_depth_extrinsics, or publish in the image's frame"
            )
        try:
            found = self._buffer.lookup_transform(target, source, Time.from_msg(stamp)).transform
        except tf2_ros.TransformException as error:
            raise InputError(f"no transform from '{source}' to '{target}' at the stamp: {error}") from error
        q, t = found.rotation, found.translation
        pose = [t.x, t.y, t.z, q.x, q.y, q.z, q.w]
        if not all(map(math.isfinite, pose)) or not math.hypot(*pose[3:]) > SHORTEST_QUATERNION:
            raise InputError(f"the transform from '{source}' to '{target}' is no pose: {pose}")
        return pose_matrix(pose)


def pose_matrix(pose: list[float]) -> Matrix:
    """(4, 4) of [x, y, z, roll, pitch, yaw] (REP 103: fixed axes, radians) or [x, y, z, qx, qy, qz, qw].

    Raises:
        ValueError: another number of values, or a quaternion of length 0.
    """
    matrix = np.eye(4)
    matrix[:3, 3] = pose[:3]
    if len(pose) == 6:
        (sr, sp, sy), (cr, cp, cy) = np.sin(pose[3:]), np.cos(pose[3:])
        matrix[:3, :3] = [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
        return matrix
    if len(pose) != 7:
        raise ValueError(f"a pose has 6 numbers (x y z roll pitch yaw) or 7 (x y z qx qy qz qw), not {len(pose)}")
    length = float(np.linalg.norm(pose[3:]))
    if not length > SHORTEST_QUATERNION:
        raise ValueError("the quaternion of a pose has length 0")
    x, y, z, w = np.asarray(pose[3:]) / length
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return matrix
