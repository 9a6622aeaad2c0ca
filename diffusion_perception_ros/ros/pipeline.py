"""The worker's function: images of one or several cameras in, messages out, in three steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from diffusion_perception_ros.inference.estimator import Query
from diffusion_perception_ros.ros.job import Job
from diffusion_perception_ros.ros.network import NodeNetwork
from diffusion_perception_ros.ros.parameters import PerceptionParameters
from diffusion_perception_ros.ros.sampling import sampling_arguments
from diffusion_perception_ros.ros.stages import Stages
from diffusion_perception_ros.ros.watchdog import Watchdog
from diffusion_perception_ros.sample import Prediction


@dataclass
class _Prepared:
    """An image of a camera, and what to ask about it."""

    stages: Stages
    job: Job
    query: Query


class Pipeline:
    """prepare → predict → finish, for the images of all cameras of a node. What fails costs the image it failed on."""

    def __init__(
        self,
        network: NodeNetwork,
        stages: Mapping[str, Stages],
        parameters: Callable[[], PerceptionParameters],
        watchdog: Watchdog,
    ) -> None:
        """`stages` by the camera's name."""
        self._network, self._stages, self._parameters, self._watchdog = network, stages, parameters, watchdog

    @property
    def most(self) -> int:
        """Images that are worth handing over together."""
        return len(self._stages) if self._network.takes_batches else 1

    @property
    def is_isolated(self) -> bool:
        """The network runs in a process of its own."""
        return self._network.is_isolated

    def __call__(self, items: Sequence[tuple[str, Job]]) -> None:
        """Takes an image of each of some cameras all the way."""
        settings = self._parameters()
        with self._watchdog.watching((id(settings), *(_form(job) for _, job in items))):
            prepared = list(self._prepare(items, sampling_arguments(settings)))
            for item, prediction in self._predict(prepared):
                self._finish(item, prediction)

    def reject(self, items: Sequence[tuple[str, Job]], error: BaseException) -> None:
        """Gives images up, as when the work on them never ends."""
        for camera, job in items:
            self._stages[camera].reject(job, error)

    def _prepare(self, items: Sequence[tuple[str, Job]], sampling: Mapping[str, Any]) -> Iterator[_Prepared]:
        for camera, job in items:
            stages = self._stages[camera]
            try:
                query = stages.prepare(job, self._network.forget)
                yield _Prepared(stages, job, replace(query, **sampling))
            except Exception as error:  # the next image may be fine again
                stages.reject(job, error)

    def _predict(self, prepared: Sequence[_Prepared]) -> Iterator[tuple[_Prepared, Prediction]]:
        """Together where the network can, else one by one, so that each image only answers for itself."""
        together = self._network.predict_together([item.query for item in prepared])
        for index, item in enumerate(prepared):
            try:
                yield item, together[index] if together else self._network.predict(item.query)
            except Exception as error:
                item.stages.reject(item.job, error)

    def _finish(self, item: _Prepared, prediction: Prediction) -> None:
        try:
            self._network.check(prediction)
            item.stages.finish(item.job, prediction, self._network.backend_name)
        except Exception as error:
            item.stages.reject(item.job, error)


def _form(job: Job) -> object:
    """Images of another form may take another time."""
    message = job.message
    return (message.width, message.height) if hasattr(message, "width") else message.format
