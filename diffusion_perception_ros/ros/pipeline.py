"""What happens to one image, in the worker's thread: decode, predict, publish, account. Nothing in here may raise."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import rclpy
from rclpy.clock import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.card import DepthOutput
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.msg import PerceptionStatus
from diffusion_perception_ros.ros.camera_info import image_intrinsics
from diffusion_perception_ros.ros.camera_topics import CameraInfos
from diffusion_perception_ros.ros.messages import decode_message, stamp_nanoseconds
from diffusion_perception_ros.ros.monitor import Monitor
from diffusion_perception_ros.ros.parameters import PerceptionParameters
from diffusion_perception_ros.ros.publishers import Frame, Outputs
from diffusion_perception_ros.ros.sparse_depth import SparseDepth
from diffusion_perception_ros.sample import Intrinsics


LARGEST_AGE = 60.0
"""Seconds between stamp and clock beyond which the two clocks are taken to have nothing to do with each other."""


@dataclass
class Job:
    """An image on its way."""

    message: Image | CompressedImage
    arrival: float
    """time.perf_counter() when it came."""


class Pipeline:
    """One model, its topics and the camera."""

    def __init__(
        self,
        estimator: Estimator,
        outputs: Outputs,
        parameters: Callable[[], PerceptionParameters],
        monitor: Monitor,
        clock: Clock,
    ) -> None:
        self.infos = CameraInfos()
        self.sparse = SparseDepth(monitor.complaints)
        self._estimator, self._outputs, self._parameters = estimator, outputs, parameters
        self._monitor, self._clock = monitor, clock

    def process(self, job: Job) -> None:
        """Predicts on an image and publishes; what goes wrong is logged, counted and put into diagnostics."""
        header = job.message.header
        where = f"image {header.stamp.sec}.{header.stamp.nanosec:09d} of '{header.frame_id}'"
        try:
            self._process(job)
        except InputError as error:
            self._monitor.reject(where, str(error))
        except Exception as error:  # the next image may be fine again
            if rclpy.ok():  # publishing fails when the process is being ended
                self._monitor.reject(where, f"{type(error).__name__}: {error}")

    def _process(self, job: Job) -> None:
        settings = self._parameters()
        tasks = self._outputs.tasks(settings)
        start = time.perf_counter()
        rgb = decode_message(job.message)
        decoded = time.perf_counter()
        header: Header = job.message.header
        info, intrinsics = self._camera(header, rgb.shape[1], rgb.shape[0], settings.rectified)
        prediction = self._estimator.predict(rgb, intrinsics, tasks)
        if not self._outputs.is_metric:
            prediction = self.sparse.scaled(header, prediction, intrinsics, settings)
        predicted = time.perf_counter()
        frame = Frame(header, rgb, prediction, info, intrinsics, settings)
        self._outputs.publish(frame)
        published = time.perf_counter()
        self._monitor.statistics.predicted(published - job.arrival)
        status = self._status(frame, tasks)
        status.decode_time = decoded - start
        status.publish_time = published - predicted
        status.latency = published - job.arrival
        self._outputs.publish_status(status)

    def _camera(
        self, header: Header, width: int, height: int, rectified: bool
    ) -> tuple[CameraInfo | None, Intrinsics | None]:
        """The camera_info of an image and the intrinsics it gives; what is wrong with it is not the image's fault."""
        complaints = self._monitor.complaints
        info = self.infos.matching(stamp_nanoseconds(header))
        if info is None:
            return None, None
        if info.header.frame_id != header.frame_id:
            reason = f"camera_info frame '{info.header.frame_id}' does not match image frame '{header.frame_id}'"
            complaints.report("camera_info frame", reason)
        else:
            complaints.clear("camera_info frame")
        try:
            intrinsics = image_intrinsics(info, width, height, rectified)
        except InputError as error:
            complaints.report("camera_info", str(error))
            return None, None
        complaints.clear("camera_info")
        return info, intrinsics

    def _status(self, frame: Frame, tasks: set[str]) -> PerceptionStatus:
        timings, counts = frame.prediction.timings, self._monitor.statistics.counts
        status = PerceptionStatus(
            header=frame.header,
            model=self._estimator.card.name,
            backend=self._estimator.backend_name,
            tasks=sorted(tasks),
            preprocess_time=timings.get("preprocess", 0.0),
            inference_time=timings.get("inference", 0.0),
            postprocess_time=timings.get("postprocess", 0.0),
            frames_received=counts["received"],
            frames_predicted=counts["predicted"],
            frames_dropped=counts["dropped"],
            frames_skipped=counts["skipped"],
            frames_rejected=counts["rejected"],
            age=self._age(frame.header),
        )
        status.scale_source, status.scale, status.shift = self._scale(frame)
        return status

    def _scale(self, frame: Frame) -> tuple[str, float, float]:
        """Where the metres of this frame come from, with scale and shift; both NaN if it has none."""
        if frame.prediction.depth is None:
            return PerceptionStatus.SCALE_NONE, math.nan, math.nan
        if self.sparse.latest is not None:
            return PerceptionStatus.SCALE_SPARSE_DEPTH, self.sparse.latest.scale, self.sparse.latest.shift
        return PerceptionStatus.SCALE_MODEL, self._model_scale(frame), 0.0

    def _model_scale(self, frame: Frame) -> float:
        """Metres per unit of a metric network's depth."""
        output = self._estimator.card.output("depth")
        if not isinstance(output, DepthOutput) or output.focal_scale is None or frame.intrinsics is None:
            return 1.0
        size = self._estimator.card.input.size.size_for(frame.intrinsics.width, frame.intrinsics.height)
        camera = frame.intrinsics.resized(*size)
        return output.focal_scale * (camera.fx + camera.fy) / 2

    def _age(self, header: Header) -> float:
        age: float = (self._clock.now().nanoseconds - stamp_nanoseconds(header)) / 1e9
        return age if abs(age) < LARGEST_AGE else math.nan
