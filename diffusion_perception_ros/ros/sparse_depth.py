"""Another sensor's depth, which turns a relative model's depth into metres frame by frame."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import Image, PointCloud2, PointField
from std_msgs.msg import Header

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.image_encodings import decode_depth
from diffusion_perception_ros.inference.metric_scale import MetricScale, fit_scale, relative_depth
from diffusion_perception_ros.inference.scale_tracking import ScaleTracker
from diffusion_perception_ros.inference.sparse_points import sparse_points
from diffusion_perception_ros.ros.messages import stamp_nanoseconds
from diffusion_perception_ros.ros.monitor import Complaints
from diffusion_perception_ros.ros.parameters import CameraParameters
from diffusion_perception_ros.sample import FloatImage, Intrinsics, Prediction


COMPLAINT = "sparse depth"


class SparseDepth:
    """The last few messages of `sparse_depth` and the scale they give. Written by the executor, read by the worker."""

    KEPT = 8

    def __init__(self, complaints: Complaints) -> None:
        self._complaints = complaints
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
        self, header: Header, prediction: Prediction, intrinsics: Intrinsics | None, settings: CameraParameters
    ) -> Prediction:
        """The prediction in metres if there is a scale for it, else as it was; what is wrong is a complaint."""
        self.latest, self.age = None, math.inf
        if not self.any_yet or prediction.depth_relative is None or prediction.depth is not None:
            return prediction
        self._tracker.time_constant, self._tracker.max_age = settings.scale_time_constant, settings.scale_max_age
        stamp = stamp_nanoseconds(header)
        try:
            self._update(stamp, header.frame_id, prediction, intrinsics, settings)
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
        frame_id: str,
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
        if message.header.frame_id != frame_id:
            raise InputError(
                f"sparse depth frame '{message.header.frame_id}' does not match image frame '{frame_id}': "
                "publish it registered to the image"
            )
        points = sparse_points(relative_depth(prediction), _measured(message, intrinsics))
        self._tracker.update(fit_scale(prediction, points), stamp / 1e9)


def _measured(message: Image | PointCloud2, intrinsics: Intrinsics | None) -> FloatImage:
    """(h, w) metres along the optical axis, NaN where nothing was measured.

    Raises:
        InputError: a message that cannot be decoded, or points without a calibrated camera to project them into.
    """
    if isinstance(message, Image):
        return decode_depth(
            message.data, message.encoding, message.width, message.height, message.step, message.is_bigendian
        )
    if intrinsics is None:
        raise InputError("sparse depth points need a camera_info to be projected into the image")
    return project_points(cloud_points(message), intrinsics)


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


def project_points(points: npt.NDArray[np.float32], intrinsics: Intrinsics) -> FloatImage:
    """Points (N, 3) of the optical frame → (H, W) metres: z of the nearest on each pixel, NaN where there is none."""
    depth = np.full((intrinsics.height, intrinsics.width), np.inf, np.float32)
    x, y, z = points[np.isfinite(points).all(axis=1) & (points[:, 2] > 0)].T
    columns = np.rint(intrinsics.fx * x / z + intrinsics.cx)
    rows = np.rint(intrinsics.fy * y / z + intrinsics.cy)
    inside = (columns >= 0) & (columns < intrinsics.width) & (rows >= 0) & (rows < intrinsics.height)
    pixels = rows[inside].astype(np.intp), columns[inside].astype(np.intp)
    np.minimum.at(depth, pixels, z[inside])
    depth[np.isinf(depth)] = np.nan
    return depth
