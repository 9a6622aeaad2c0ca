"""The model, in the worker's thread: images of several cameras in, their predictions to where they came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.ros.monitor import Complaints
from diffusion_perception_ros.ros.parameters import PerceptionParameters
from diffusion_perception_ros.ros.pipeline import Job, Pipeline, Request
from diffusion_perception_ros.ros.sampling import sampling_arguments
from diffusion_perception_ros.sample import Prediction


COMPLAINT = "batch"


class Predictor:
    """One estimator for the pipelines of all cameras."""

    def __init__(
        self,
        estimator: Estimator,
        pipelines: Mapping[str, Pipeline],
        parameters: Callable[[], PerceptionParameters],
        complaints: Complaints,
    ) -> None:
        self._estimator, self._pipelines = estimator, pipelines
        self._parameters, self._complaints = parameters, complaints
        self._takes_batches = estimator.takes_batches

    @property
    def most(self) -> int:
        """Images that are worth handing over together."""
        return len(self._pipelines) if self._takes_batches else 1

    def __call__(self, jobs: Sequence[tuple[str, Job]]) -> None:
        """Predicts on an image of each of some cameras. Never raises: what goes wrong is that camera's complaint."""
        sampling = sampling_arguments(self._parameters())
        requests = {}
        for camera, job in jobs:
            request = self._pipelines[camera].prepare(job)
            if request is not None:
                requests[camera] = replace(request, query=replace(request.query, **sampling))
        predictions = self._together(list(requests.values()))
        for index, (camera, request) in enumerate(requests.items()):
            pipeline = self._pipelines[camera]
            with pipeline.rejecting(request.job):
                prediction = predictions[index] if predictions else self._alone(request)
                pipeline.finish(request, prediction)

    def _together(self, requests: Sequence[Request]) -> list[Prediction] | None:
        """All predictions in one run of the network; None if they have to be made one by one."""
        if len(requests) < 2 or not self._takes_batches:
            return None
        try:
            return self._estimator.predict_batch([request.query for request in requests])
        except InputError:
            return None  # one of them is wrong; alone, it is only that camera's complaint
        except RuntimeError as error:  # more than the backend, or its memory, was made for
            self._takes_batches = False
            self._complaints.report(COMPLAINT, f"images of several cameras are predicted one by one: {error}")
            return None

    def _alone(self, request: Request) -> Prediction:
        return self._estimator.predict(**vars(request.query))
