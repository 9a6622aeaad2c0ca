"""The scale from the floor in the node: camera height and gravity, from an IMU or from how the camera is mounted."""

from __future__ import annotations

import math
from collections.abc import Callable, Set

import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import Imu

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.card import ModelCard
from diffusion_perception_ros.inference.metric_scale.ground_plane import FLOOR_LABELS, fit_ground_plane, mount_gravity
from diffusion_perception_ros.inference.metric_scale.tracking import ScaleTracker
from diffusion_perception_ros.ros.job import Job
from diffusion_perception_ros.ros.messages import stamp_nanoseconds
from diffusion_perception_ros.ros.parameters import CameraParameters
from diffusion_perception_ros.ros.problems import Kind, Problems
from diffusion_perception_ros.ros.scale_source import ScaleSource
from diffusion_perception_ros.ros.transforms import Transforms
from diffusion_perception_ros.sample import Prediction


_STANDARD_GRAVITY = 9.80665
_QUIET = 1.5
"""m/s^2 by which an acceleration may differ from standard gravity and still be taken for it."""
_STALE = 1.0
"""Seconds after which an IMU that has gone silent says nothing about the present."""

Vector = npt.NDArray[np.float64]


class Gravity:
    """Direction of gravity in the frame of an IMU. Written by the executor, read by the worker."""

    def __init__(self, time_constant: float = 0.5) -> None:
        """`time_constant`: seconds over which accelerations are averaged."""
        self._time_constant = time_constant
        self._up: Vector | None = None
        self._stamp = -math.inf
        self.frame_id = ""

    def add(self, message: Imu) -> None:
        """Takes a measurement in: its orientation if it has one (REP 145), else the acceleration while at rest."""
        stamp = stamp_nanoseconds(message.header) / 1e9
        up = _up_by_orientation(message)
        measured = up is not None
        if up is None:
            acceleration = message.linear_acceleration
            up = np.array([acceleration.x, acceleration.y, acceleration.z])
            length = float(np.linalg.norm(up))
            if not abs(length - _STANDARD_GRAVITY) < _QUIET:  # accelerating, or not a number
                return
            up /= length
        elapsed = stamp - self._stamp
        if self._up is not None and not measured and self.frame_id == message.header.frame_id and elapsed >= 0:
            up = self._up + (1 - math.exp(-elapsed / self._time_constant)) * (up - self._up)
        self._up, self._stamp, self.frame_id = up / np.linalg.norm(up), stamp, message.header.frame_id

    def at(self, stamp: float) -> Vector:
        """(3,) unit vector downwards, in the IMU's frame.

        Raises:
            InputError: nothing has been measured at that time.
        """
        if self._up is None:
            raise InputError("no direction of gravity has come on imu (gravity_source)")
        if abs(stamp - self._stamp) > _STALE:
            raise InputError(f"the last direction of gravity on imu is {abs(stamp - self._stamp):.1f} s away")
        return -self._up


def _up_by_orientation(message: Imu) -> Vector | None:
    """World's z axis in the IMU's frame; None if the message has no orientation."""
    q = message.orientation
    length = q.x * q.x + q.y * q.y + q.z * q.z + q.w * q.w
    if message.orientation_covariance[0] == -1 or not abs(length - 1) < 0.01:
        return None
    return np.array([2 * (q.x * q.z - q.w * q.y), 2 * (q.y * q.z + q.w * q.x), 1 - 2 * (q.x * q.x + q.y * q.y)])


class GroundScale(ScaleSource):
    """The scale by the floor of one camera."""

    kind = Kind.GROUND_PLANE

    def __init__(self, card: ModelCard, transforms: Callable[[], Transforms], problems: Problems) -> None:
        """`transforms` gives the listener to /tf, which only an IMU in another frame needs."""
        super().__init__(problems)
        self.gravity = Gravity()
        self._transforms = transforms
        self._floor = [label.id for label in card.labels if {label.name, label.group} & FLOOR_LABELS]

    def gives_metres(self, settings: CameraParameters) -> bool:
        """Whether the camera's height is known."""
        return settings.camera_height > 0

    def needs(self, tasks: Set[str], settings: CameraParameters) -> set[str]:
        """What else has to be predicted: where the floor is."""
        wanted = self.gives_metres(settings) and "depth" in tasks and bool(self._floor)
        return {"semantic"} if wanted else set()

    def _measure(self, job: Job, prediction: Prediction, tracker: ScaleTracker) -> None:
        settings, header = job.parameters, job.header
        if job.intrinsics is None:
            raise InputError("a scale by camera_height needs a camera_info")
        if settings.gravity_source == "imu":
            down = self.gravity.at(job.stamp)
            if self.gravity.frame_id != header.frame_id:
                rotation = self._transforms().between(header.frame_id, self.gravity.frame_id, header.stamp)[:3, :3]
                down = rotation @ down
        else:
            down = mount_gravity(settings.camera_pitch, settings.camera_roll)
        floor = np.isin(prediction.semantic, self._floor) if self._floor and prediction.semantic is not None else None
        last = tracker.at(job.stamp)
        shift = last.shift if last is not None else None
        scale = fit_ground_plane(prediction, job.intrinsics, down, settings.camera_height, floor, shift)
        tracker.update(scale, job.stamp)
