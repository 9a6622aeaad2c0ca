"""Another sensor's depth, which turns a relative model's depth into metres frame by frame."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.image_messages import depth_of
from diffusion_perception_ros.inference.metric_scale.scale import fit_scale, relative_depth
from diffusion_perception_ros.inference.metric_scale.sparse_points import sparse_points
from diffusion_perception_ros.inference.metric_scale.tracking import ScaleTracker
from diffusion_perception_ros.ros.job import Job
from diffusion_perception_ros.ros.lidar_projection import cloud_points, extrinsics_matrix, project_points
from diffusion_perception_ros.ros.messages import belongs_to, seconds_between
from diffusion_perception_ros.ros.parameters import CameraParameters
from diffusion_perception_ros.ros.problems import Kind, Problems
from diffusion_perception_ros.ros.scale_source import ScaleSource
from diffusion_perception_ros.ros.transforms import Transforms
from diffusion_perception_ros.sample import FloatImage, Intrinsics, Prediction


class SparseDepth(ScaleSource):
    """The last few messages of `sparse_depth` and the scale they give."""

    kind = Kind.SPARSE_DEPTH
    KEPT = 8

    def __init__(self, transforms: Callable[[], Transforms], problems: Problems) -> None:
        """`transforms` gives the listener to /tf, which only clouds in another frame need."""
        super().__init__(problems)
        self._transforms = transforms
        self._messages: deque[Image | PointCloud2] = deque(maxlen=self.KEPT)
        self._any_yet = False
        """One has come since the activation."""

    def add(self, message: Image | PointCloud2) -> None:
        """Takes a message in."""
        self._messages.append(message)
        self._any_yet = True

    def gives_metres(self, settings: CameraParameters) -> bool:
        """Whether anything has come."""
        return self._any_yet

    def restart(self, stamp: float) -> None:
        """Time starts anew: forgets the scale, and the messages that do not belong to the new time."""
        super().restart(stamp)
        kept = [message for message in tuple(self._messages) if belongs_to(stamp, message.header)]
        self._messages = deque(kept, maxlen=self.KEPT)

    def _measure(self, job: Job, prediction: Prediction, tracker: ScaleTracker) -> None:
        """Fits the measurement nearest in time; none near enough is no error as long as the last scale is fresh.

        Raises:
            InputError: nothing near enough for too long, another frame, or a measurement that gives no scale.
        """
        stamp, settings, messages = job.stamp, job.parameters, tuple(self._messages)
        message = min(messages, key=lambda item: seconds_between(item.header, job.header), default=None)
        seconds = math.inf if message is None else seconds_between(message.header, job.header)
        if message is None or seconds > settings.sparse_depth_tolerance:
            if tracker.at(stamp) is None:
                raise InputError(
                    f"the nearest sparse depth is {seconds:.2f} s away from the image, "
                    f"{settings.sparse_depth_tolerance:.2f} s are allowed (sparse_depth_tolerance)"
                )
            return
        relative = relative_depth(prediction)
        points = sparse_points(relative, self._measured(message, job.header, job.intrinsics, settings))
        last = tracker.at(stamp)
        tracker.update(fit_scale(prediction, points, last.shift if last is not None else None), stamp)
        smoothed = tracker.at(stamp)
        if settings.scale_field and smoothed is not None:
            tracker.localise(smoothed.localised(relative, points, job.rgb))

    def _measured(
        self,
        message: Image | PointCloud2,
        header: Header,
        intrinsics: Intrinsics | None,
        settings: CameraParameters,
    ) -> FloatImage:
        """(h, w) metres along the optical axis, NaN where nothing was measured.

        Raises:
            InputError: a message that cannot be decoded, another frame, or points without a calibrated camera.
        """
        frame_id = message.header.frame_id
        if not isinstance(message, PointCloud2):
            if frame_id != header.frame_id:
                raise InputError(
                    f"sparse depth frame '{frame_id}' does not match image frame '{header.frame_id}': "
                    "publish it registered to the image"
                )
            return depth_of(message)
        if intrinsics is None:
            raise InputError("sparse depth points need a camera_info to be projected into the image")
        optical_from_sensor = None
        if settings.sparse_depth_extrinsics:
            optical_from_sensor = extrinsics_matrix(settings.sparse_depth_extrinsics)
        elif frame_id != header.frame_id:
            # at the cloud's stamp: extrinsics may move, as those of a pan-tilt head do
            optical_from_sensor = self._transforms().between(header.frame_id, frame_id, message.header.stamp)
        return project_points(cloud_points(message), intrinsics, optical_from_sensor)
