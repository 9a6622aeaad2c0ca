"""The model, in the worker's thread: images of several cameras in, their predictions to where they came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.ros.pipeline import Job, Pipeline


class Predictor:
    """One estimator for the pipelines of all cameras."""

    def __init__(self, estimator: Estimator, pipelines: Mapping[str, Pipeline]) -> None:
        self._estimator, self._pipelines = estimator, pipelines

    def __call__(self, jobs: Sequence[tuple[str, Job]]) -> None:
        """Predicts on an image of each of some cameras. Never raises: what goes wrong is that camera's complaint."""
        for camera, job in jobs:
            pipeline = self._pipelines[camera]
            request = pipeline.prepare(job)
            if request is None:
                continue
            with pipeline.rejecting(job):
                prediction = self._estimator.predict(request.rgb, request.intrinsics, request.tasks)
                pipeline.finish(request, prediction)
