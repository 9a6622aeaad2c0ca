"""What the sources of a scale have in common, which turn a relative model's depth into metres image by image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Set

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.metric_scale.scale import MetricScale
from diffusion_perception_ros.inference.metric_scale.tracking import ScaleTracker
from diffusion_perception_ros.ros.job import Job
from diffusion_perception_ros.ros.parameters import CameraParameters
from diffusion_perception_ros.ros.problems import Kind, Problems
from diffusion_perception_ros.sample import Prediction


class ScaleSource(ABC):
    """A measurement that gives a scale. Its messages come in the executor's thread, the rest is the worker's."""

    kind: Kind
    """What is wrong with the measurement is a problem of this kind."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._tracker = ScaleTracker(0.0, 0.0)
        self.latest: tuple[MetricScale, float] | None = None
        """Scale of the last image, and seconds between it and the measurement; None if it had none."""

    @abstractmethod
    def gives_metres(self, settings: CameraParameters) -> bool:
        """An image can have depth in metres from this source."""

    def needs(self, tasks: Set[str], settings: CameraParameters) -> set[str]:
        """What else has to be predicted for it."""
        return set()

    def restart(self, stamp: float) -> None:
        """Time starts anew at a stamp in seconds: forgets the scale."""
        self._tracker = ScaleTracker(0.0, 0.0)

    def scaled(self, job: Job, prediction: Prediction) -> Prediction:
        """The prediction in metres if there is a scale for it, else as it was; what is wrong becomes a problem."""
        self.latest, settings = None, job.parameters
        if not self.gives_metres(settings) or prediction.depth_relative is None or prediction.depth is not None:
            return prediction
        tracker = self._tracker
        tracker.time_constant, tracker.max_age = settings.scale_time_constant, settings.scale_max_age
        try:
            self._measure(job, prediction, tracker)
            self._problems.clear(self.kind)
        except InputError as error:
            self._problems.report(self.kind, str(error))
        scale = tracker.at(job.stamp)
        if scale is None:
            return prediction
        self.latest = scale, tracker.age(job.stamp)
        return scale.apply(prediction)

    @abstractmethod
    def _measure(self, job: Job, prediction: Prediction, tracker: ScaleTracker) -> None:
        """Gives the tracker the scale of an image, if there is a measurement for it.

        Raises:
            InputError: there is none though there should be, or it gives no scale.
        """


def scale_of(sources: list[ScaleSource]) -> tuple[MetricScale, float] | None:
    """The scale of the last image and its age in seconds; None if no source gave one."""
    return next((source.latest for source in sources if source.latest is not None), None)
