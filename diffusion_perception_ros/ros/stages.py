"""What one camera's image goes through before and after the network: `prepare` and `finish`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from rclpy.clock import Clock

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.camera_model import image_intrinsics
from diffusion_perception_ros.inference.card import DepthOutput, ModelCard
from diffusion_perception_ros.inference.estimator import Query
from diffusion_perception_ros.inference.image_messages import color_of
from diffusion_perception_ros.inference.metric_scale.scale import MetricScale
from diffusion_perception_ros.inference.temporal.filter import TemporalFilter
from diffusion_perception_ros.msg import PerceptionStatus
from diffusion_perception_ros.ros.camera_topics import CameraInfos
from diffusion_perception_ros.ros.frame import Frame
from diffusion_perception_ros.ros.gravity import GroundScale
from diffusion_perception_ros.ros.job import Job
from diffusion_perception_ros.ros.message_memory import MessageMemory
from diffusion_perception_ros.ros.messages import stamp_nanoseconds
from diffusion_perception_ros.ros.monitor import Monitor
from diffusion_perception_ros.ros.parameters import CameraParameters
from diffusion_perception_ros.ros.problems import Kind
from diffusion_perception_ros.ros.prompts import PromptTopics
from diffusion_perception_ros.ros.publishers import Outputs
from diffusion_perception_ros.ros.scale_source import ScaleSource, scale_of
from diffusion_perception_ros.ros.sparse_depth import SparseDepth
from diffusion_perception_ros.ros.transforms import Transforms
from diffusion_perception_ros.ros.video_input import VideoInput
from diffusion_perception_ros.sample import Prediction


LARGEST_AGE = 60.0
"""Seconds between stamp and clock beyond which the two clocks are taken to have nothing to do with each other."""


class Stages:
    """From an activation to the next deactivation, in the worker's thread; `restart` and `close` in the executor's."""

    def __init__(
        self,
        name: str,
        outputs: Outputs,
        parameters: Callable[[], CameraParameters],
        monitor: Monitor,
        clock: Clock,
        transforms: Callable[[], Transforms],
    ) -> None:
        """`name` is the camera's, and that of the estimator's stream; `transforms` gives the listener to /tf."""
        card, problems = outputs.card, monitor.problems
        self.infos = CameraInfos()
        self.video = VideoInput()
        self.prompts = PromptTopics(card, problems)
        self.sparse = SparseDepth(transforms, problems)
        self.ground = GroundScale(card, transforms, problems)
        self._sources: list[ScaleSource] = [] if outputs.is_metric else [self.sparse, self.ground]
        self._steady = TemporalFilter()
        self._memory = MessageMemory()
        self._name, self._starts_anew, self._closed = name, True, False
        self._outputs, self._parameters, self._monitor, self._clock = outputs, parameters, monitor, clock

    def restart(self, stamp: float) -> None:
        """Time starts anew at a stamp in seconds, as when a bag loops: forgets what belongs to the images so far."""
        self.infos.restart(stamp)
        for source in (self.sparse, self.ground):
            source.restart(stamp)
        self._starts_anew = True  # what the worker's thread remembers, it forgets itself

    def close(self) -> None:
        """Nothing is published any more, whatever is still in work."""
        self._closed = True

    def gives_metres(self, settings: CameraParameters) -> bool:
        """An image can have depth in metres."""
        return self._outputs.is_metric or any(source.gives_metres(settings) for source in self._sources)

    @property
    def scale(self) -> tuple[MetricScale, float] | None:
        """The scale of the last image and its age in seconds; None if it had none, or the model's own."""
        return scale_of(self._sources)

    def tasks(self, settings: CameraParameters) -> set[str]:
        """What the network must compute for the subscribers there are now."""
        return self._outputs.tasks(settings, self.gives_metres(settings))

    def prepare(self, job: Job, forget: Callable[[str], None]) -> Query:
        """Decodes an image, and says what to ask about it; `forget` ends what the network remembers of a stream.

        Raises:
            InputError: it cannot be decoded.
        """
        start = time.perf_counter()
        settings = job.parameters = self._parameters()
        video = self.video.image(job.message, settings.image_limits)
        job.rgb = color_of(job.message, settings.image_limits) if video is None else video
        job.decode_time = time.perf_counter() - start
        height, width = job.rgb.shape[:2]
        self._find_camera(job, width, height)
        if self._starts_anew:
            self._starts_anew = False
            forget(self._name)
            self._steady.reset()
        job.tasks = self.tasks(settings)
        job.output_size = self._output_size(settings, width, height)
        return Query(
            job.rgb,
            job.intrinsics,
            job.tasks.union(*(source.needs(job.tasks, settings) for source in self._sources)),
            self.prompts.points(job.header.frame_id, width, height, settings.prompt_points),
            self.prompts.mask(width, height, settings.image_limits),
            output_size=job.output_size,
            memory=None if settings.temporal else self._memory,  # the filter keeps maps of earlier images
            stream=self._name,
        )

    def finish(self, job: Job, prediction: Prediction, backend: str) -> None:
        """Steadies and scales a prediction, publishes it and accounts for it; `backend` made it."""
        start = time.perf_counter()
        settings = job.parameters
        job.shrink()
        if settings.temporal:
            self._steady.time_constant = settings.temporal_time_constant
            prediction = self._steady.filter(prediction, job.rgb, job.stamp)
        for source in self._sources:
            prediction = source.scaled(job, prediction)
        predicted = time.perf_counter()
        if self._closed:
            return
        frame = Frame(job, prediction, self.scale, self._outputs.card, self._outputs.cloud, self._memory)
        self._outputs.publish(frame, self._monitor.problems)
        published = time.perf_counter()
        self._monitor.statistics.predicted(published - job.arrival)
        status = self._status(frame, backend)
        status.decode_time = job.decode_time
        status.postprocess_time += predicted - start
        status.publish_time = published - predicted
        status.latency = published - job.arrival
        self._outputs.publish_status(status)

    def _output_size(self, settings: CameraParameters, width: int, height: int) -> tuple[int, int] | None:
        """Width and height of the maps, the image's aspect kept; None = the image's."""
        if settings.output_size == "image":
            return None
        if settings.output_size == "half":
            return (width + 1) // 2, (height + 1) // 2
        columns, _ = self._outputs.card.input.size.size_for(width, height)  # of the card's own area
        return (columns, max(1, round(columns * height / width))) if columns < width else None

    def reject(self, job: Job, error: BaseException) -> None:
        """Gives an image up: what went wrong is logged, counted and put into diagnostics."""
        if not self._closed:  # publishing fails while the node is being ended
            reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            self._monitor.reject(job.where, reason)

    def _find_camera(self, job: Job, width: int, height: int) -> None:
        """The camera_info of an image and the intrinsics it gives; what is wrong with it is not the image's fault."""
        problems, header = self._monitor.problems, job.header
        job.info = job.intrinsics = None
        info = self.infos.matching(stamp_nanoseconds(header))
        if info is None:
            return
        if info.header.frame_id != header.frame_id:
            reason = f"camera_info frame '{info.header.frame_id}' does not match image frame '{header.frame_id}'"
            problems.report(Kind.CAMERA_INFO_FRAME, reason)
        else:
            problems.clear(Kind.CAMERA_INFO_FRAME)
        try:
            job.intrinsics = image_intrinsics(info, width, height, job.parameters.rectified)
        except (InputError, ArithmeticError, ValueError) as error:
            problems.report(Kind.CAMERA_INFO, str(error))
            return
        job.info = info
        problems.clear(Kind.CAMERA_INFO)

    def _status(self, frame: Frame, backend: str) -> PerceptionStatus:
        timings, counts = frame.prediction.timings, self._monitor.statistics.counts
        status = PerceptionStatus(
            header=frame.header,
            model=frame.card.name,
            backend=backend,
            tasks=sorted(frame.job.tasks),
            preprocess_time=timings.get("preprocess", 0.0),
            inference_time=timings.get("inference", 0.0),
            postprocess_time=timings.get("postprocess", 0.0),
            frames_received=counts.received,
            frames_predicted=counts.predicted,
            frames_dropped=counts.dropped,
            frames_skipped=counts.skipped,
            frames_rejected=counts.rejected,
            age=self._age(frame.job),
        )
        _add_scale(status, frame)
        return status

    def _age(self, job: Job) -> float:
        age: float = (self._clock.now().nanoseconds - stamp_nanoseconds(job.header)) / 1e9
        return age if abs(age) < LARGEST_AGE else math.nan


def _add_scale(status: PerceptionStatus, frame: Frame) -> None:
    """Where the metres of a frame come from."""
    status.scale = status.shift = status.scale_inliers = status.scale_residual = status.scale_age = math.nan
    if frame.prediction.depth is None:
        status.scale_source = PerceptionStatus.SCALE_NONE
    elif frame.scale is not None:
        scale, status.scale_age = frame.scale
        status.scale_source = scale.source
        status.scale, status.shift = scale.scale, scale.shift
        status.scale_inliers, status.scale_residual = scale.inliers, scale.residual
    else:
        status.scale_source = PerceptionStatus.SCALE_MODEL
        status.scale, status.shift = _model_scale(frame.job, frame.card), 0.0


def _model_scale(job: Job, card: ModelCard) -> float:
    """Metres per unit of a metric network's depth."""
    output = card.output("depth")
    if not isinstance(output, DepthOutput) or output.focal_scale is None or job.intrinsics is None:
        return 1.0
    size = card.input.size.size_for(job.intrinsics.width, job.intrinsics.height)
    camera = job.intrinsics.resized(*size)
    return output.focal_scale * (camera.fx + camera.fy) / 2
