"""What happens to one camera's image in the worker's thread: decode, then, once predicted, scale, publish, account."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import rclpy
from rclpy.clock import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.camera_model import image_intrinsics
from diffusion_perception_ros.inference.card import DepthOutput
from diffusion_perception_ros.inference.estimator import Estimator, Query
from diffusion_perception_ros.inference.image_messages import color_of
from diffusion_perception_ros.inference.metric_scale.scale import MetricScale
from diffusion_perception_ros.inference.temporal.filter import TemporalFilter
from diffusion_perception_ros.msg import PerceptionStatus
from diffusion_perception_ros.ros.camera_topics import CameraInfos
from diffusion_perception_ros.ros.frame import Frame
from diffusion_perception_ros.ros.gravity import GroundScale
from diffusion_perception_ros.ros.messages import stamp_nanoseconds
from diffusion_perception_ros.ros.monitor import Monitor
from diffusion_perception_ros.ros.parameters import CameraParameters
from diffusion_perception_ros.ros.prompts import PromptTopics
from diffusion_perception_ros.ros.publishers import Outputs
from diffusion_perception_ros.ros.sparse_depth import SparseDepth
from diffusion_perception_ros.ros.transforms import Transforms
from diffusion_perception_ros.sample import Intrinsics, Prediction


LARGEST_AGE = 60.0
"""Seconds between stamp and clock beyond which the two clocks are taken to have nothing to do with each other."""


@dataclass
class Job:
    """An image on its way."""

    message: Image | CompressedImage
    arrival: float
    """time.perf_counter() when it came."""

    @property
    def header(self) -> Header:
        """Of the image, and of all that is published about it."""
        header: Header = self.message.header
        return header


@dataclass
class Request:
    """A decoded image and what to predict of it."""

    job: Job
    query: Query
    info: CameraInfo | None
    tasks: set[str]
    parameters: CameraParameters
    decode_time: float


class Pipeline:
    """What happens to the images of one camera before and after the network."""

    def __init__(
        self,
        name: str,
        estimator: Estimator,
        outputs: Outputs,
        parameters: Callable[[], CameraParameters],
        monitor: Monitor,
        clock: Clock,
        transforms: Callable[[], Transforms],
    ) -> None:
        """`name` is the camera's, and that of the estimator's stream; `transforms` gives the listener to /tf."""
        self.infos = CameraInfos()
        self.prompts = PromptTopics(estimator.card, monitor.complaints)
        self.sparse = SparseDepth(transforms, monitor.complaints)
        self.ground = GroundScale(estimator.card, transforms, monitor.complaints)
        self._steady = TemporalFilter()
        self._name, self._starts_anew = name, True
        self._estimator, self._outputs, self._parameters = estimator, outputs, parameters
        self._monitor, self._clock = monitor, clock

    def restart(self) -> None:
        """Time starts anew, as when a bag loops: forgets what belongs to the images so far."""
        self.infos.clear()
        self.sparse.clear()
        self.ground.clear()
        self._starts_anew = True  # what the worker's thread remembers, it forgets itself

    def prepare(self, job: Job) -> Request | None:
        """Decodes an image; None if it cannot be used."""
        with self.rejecting(job):
            settings = self._parameters()
            start = time.perf_counter()
            rgb = color_of(job.message)
            decode_time = time.perf_counter() - start
            height, width = rgb.shape[:2]
            info, intrinsics = self._camera(job.header, width, height, settings.rectified)
            if self._starts_anew:
                self._starts_anew = False
                self._estimator.forget(self._name)
                self._steady.reset()
            tasks = self._outputs.tasks(settings)
            query = Query(
                rgb,
                intrinsics,
                tasks | self.ground.needs(tasks, settings),
                self.prompts.points(job.header.frame_id, width, height, settings.prompt_points),
                self.prompts.mask(width, height),
                stream=self._name,
            )
            return Request(job, query, info, tasks, settings, decode_time)
        return None

    def finish(self, request: Request, prediction: Prediction) -> None:
        """Steadies and scales a prediction, publishes it and accounts for it."""
        with self.rejecting(request.job):
            header, settings, arrival = request.job.header, request.parameters, request.job.arrival
            start = time.perf_counter()
            if settings.temporal:
                self._steady.time_constant = settings.temporal_time_constant
                stamp = stamp_nanoseconds(header) / 1e9
                prediction = self._steady.filter(prediction, request.query.rgb, stamp)
            if not self._outputs.is_metric:
                rgb, intrinsics = request.query.rgb, request.query.intrinsics
                prediction = self.sparse.scaled(header, rgb, prediction, intrinsics, settings)
                prediction = self.ground.scaled(header, prediction, intrinsics, settings)
            predicted = time.perf_counter()
            frame = Frame(
                header,
                request.query.rgb,
                prediction,
                request.info,
                request.query.intrinsics,
                settings,
                self._outputs.card,
                self._outputs.cloud,
            )
            self._outputs.publish(frame)
            published = time.perf_counter()
            self._monitor.statistics.predicted(published - arrival)
            status = self._status(frame, request.tasks)
            status.decode_time = request.decode_time
            status.postprocess_time += predicted - start
            status.publish_time = published - predicted
            status.latency = published - arrival
            self._outputs.publish_status(status)

    @contextlib.contextmanager
    def rejecting(self, job: Job) -> Iterator[None]:
        """Whatever goes wrong inside is logged, counted and put into diagnostics, and this image is given up."""
        stamp = job.header.stamp
        where = f"image {stamp.sec}.{stamp.nanosec:09d} of '{job.header.frame_id}'"
        try:
            yield
        except InputError as error:
            self._monitor.reject(where, str(error))
        except Exception as error:  # the next image may be fine again
            if rclpy.ok():  # publishing fails when the process is being ended
                self._monitor.reject(where, f"{type(error).__name__}: {error}")

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
        self._add_scale(status, frame)
        return status

    @property
    def scale(self) -> tuple[MetricScale, float] | None:
        """The scale of the last frame and its age in seconds; None if it had none, or the model's own."""
        sources = ((source.latest, source.age) for source in (self.sparse, self.ground))
        return next(((scale, age) for scale, age in sources if scale is not None), None)

    def _add_scale(self, status: PerceptionStatus, frame: Frame) -> None:
        """Where the metres of this frame come from."""
        status.scale = status.shift = status.scale_inliers = status.scale_residual = status.scale_age = math.nan
        if frame.prediction.depth is None:
            status.scale_source = PerceptionStatus.SCALE_NONE
        elif self.scale is not None:
            scale, status.scale_age = self.scale
            status.scale_source = scale.source
            status.scale, status.shift = scale.scale, scale.shift
            status.scale_inliers, status.scale_residual = scale.inliers, scale.residual
        else:
            status.scale_source = PerceptionStatus.SCALE_MODEL
            status.scale, status.shift = self._model_scale(frame), 0.0

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
