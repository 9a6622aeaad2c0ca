"""Another sensor's depth, which turns a relative model's depth into metres frame by frame."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.image_encodings import decode_depth
from diffusion_perception_ros.inference.metric_scale.scale import MetricScale, fit_scale, relative_depth
from diffusion_perception_ros.inference.metric_scale.sparse_points import sparse_points
from diffusion_perception_ros.inference.metric_scale.tracking import ScaleTracker
from diffusion_perception_ros.ros.lidar_projection import cloud_points, extrinsics_matrix, project_points
from diffusion_perception_ros.ros.messages import stamp_nanoseconds
from diffusion_perception_ros.ros.monitor import Complaints
from diffusion_perception_ros.ros.parameters import CameraParameters
from diffusion_perception_ros.ros.transforms import Transforms
from diffusion_perception_ros.sample import FloatImage, Intrinsics, Prediction, UInt8Image


COMPLAINT = "sparse depth"


class SparseDepth:
    """The last few messages of `sparse_depth` and the scale they give. Written by the executor, read by the worker."""

    KEPT = 8

    def __init__(self, transforms: Callable[[], Transforms], complaints: Complaints) -> None:
        """`transforms` gives the listener to /tf, which only clouds in another frame need."""
        self._transforms, self._complaints = transforms, complaints
        self._messages: deque[Image | PointCloud2] = deque(maxlen=self.KEPT)
        self._tracker = ScaleTracker(0.0, 0.0)
        self.any_yet = False
        """One has come since the activation."""
        self.latest: MetricScale | None = None
        """Scale of the last frame, None if it had none."""
        self.age = math.inf
        """Seconds between the last frame and the measurement behind its scale."""

    def add(self, message: Image | PointCloud2) -> None:
        """Takes a message in."""
        self._messages.append(message)
        self.any_yet = True

    def clear(self) -> None:
        """Forgets messages and scale: time starts anew."""
        self._messages.clear()
        self._tracker = ScaleTracker(0.0, 0.0)

    def scaled(
        self,
        header: Header,
        rgb: UInt8Image,
        prediction: Prediction,
        intrinsics: Intrinsics | None,
        settings: CameraParameters,
    ) -> Prediction:
        """The prediction in metres if there is a scale for it, else as it was; what is wrong is a complaint."""
        self.latest, self.age = None, math.inf
        if not self.any_yet or prediction.depth_relative is None or prediction.depth is not None:
            return prediction
        self._tracker.time_constant, self._tracker.max_age = settings.scale_time_constant, settings.scale_max_age
        stamp = stamp_nanoseconds(header)
        try:
            self._update(stamp, header, rgb, prediction, intrinsics, settings)
            self._complaints.clear(COMPLAINT)
        except InputError as error:
            self._complaints.report(COMPLAINT, str(error))
        self.latest = self._tracker.at(stamp / 1e9)
        if self.latest is None:
            return prediction
        self.age = self._tracker.age(stamp / 1e9)
        return self.latest.apply(prediction)

    def _update(
        self,
        stamp: int,
        header: Header,
        rgb: UInt8Image,
        prediction: Prediction,
        intrinsics: Intrinsics | None,
        settings: CameraParameters,
    ) -> None:
        """Fits the measurement nearest in time; none near enough is no error as long as the last scale is fresh.

        Raises:
            InputError: nothing near enough for too long, another frame, or a measurement that gives no scale.
        """
        messages = tuple(self._messages)
        message = min(messages, key=lambda item: abs(stamp_nanoseconds(item.header) - stamp), default=None)
        seconds = math.inf if message is None else abs(stamp_nanoseconds(message.header) - stamp) / 1e9
        if message is None or seconds > settings.sparse_depth_tolerance:
            if self._tracker.at(stamp / 1e9) is None:
                raise InputError(
                    f"the nearest sparse depth is {seconds:.2f} s away from the image, "
                    f"{settings.sparse_depth_tolerance:.2f} s are allowed (sparse_depth_tolerance)"
                )
            return
        relative = relative_depth(prediction)
        points = sparse_points(relative, self._measured(message, header, intrinsics, settings))
        last = self._tracker.at(stamp / 1e9)
        self._tracker.update(fit_scale(prediction, points, last.shift if last is not None else None), stamp / 1e9)
        smoothed = self._tracker.at(stamp / 1e9)
        if settings.scale_field and smoothed is not None:
            self._tracker.localise(smoothed.localised(relative, points, rgb))

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
        if isinstance(message, Image):
            if frame_id != header.frame_id:
                raise InputError(
                    f"sparse depth frame '{frame_id}' does not match image frame '{header.frame_id}': "
                    "publish it registered to the image"
                )
            return decode_depth(
                message.data, message.encoding, message.width, message.height, message.step, message.is_bigendian
            )
        if intrinsics is None:
            raise InputError("sparse depth points need a camera_info to be projected into the image")
        optical_from_sensor = None
        if settings.sparse_depth_extrinsics:
            optical_from_sensor = extrinsics_matrix(settings.sparse_depth_extrinsics)
        elif frame_id != header.frame_id:
            # at the cloud's stamp: extrinsics may move, as those of a pan-tilt head do
            optical_from_sensor = self._transforms().between(header.frame_id, frame_id, message.header.stamp)
        return project_points(cloud_points(message), intrinsics, optical_from_sensor)
