"""The model of a node in use: one run at a time, whoever asks, and what is wrong with its answers."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.card import ModelCard
from diffusion_perception_ros.inference.estimator import Estimator, Query
from diffusion_perception_ros.inference.remote_estimator import ProcessLost, RemoteEstimator
from diffusion_perception_ros.ros.problems import Kind, Problems
from diffusion_perception_ros.sample import Prediction


class NodeNetwork:
    """An estimator for the worker's thread, or for two while the one before still works on its last image."""

    def __init__(self, estimator: Estimator | RemoteEstimator, problems: Problems) -> None:
        self.estimator = estimator
        self.takes_batches = estimator.takes_batches
        self._problems = problems
        self._lock = threading.Lock()

    @property
    def card(self) -> ModelCard:
        """Of the model."""
        return self.estimator.card

    @property
    def backend_name(self) -> str:
        """What runs the network."""
        return self.estimator.backend_name

    @property
    def is_isolated(self) -> bool:
        """It runs in a process of its own, which is killed when it hangs."""
        return isinstance(self.estimator, RemoteEstimator)

    def close(self) -> None:
        """Ends its process, if it has one of its own."""
        if isinstance(self.estimator, RemoteEstimator):
            self.estimator.close()

    def forget(self, stream: str) -> None:
        """The next image of a stream is the first of a new video."""
        with self._lock:
            self.estimator.forget(stream)

    def predict(self, query: Query) -> Prediction:
        """Predicts on one image.

        Raises:
            InputError, RuntimeError: as `Estimator.predict`.
        """
        with self._lock:
            try:
                return self.estimator.predict(**vars(query))
            except ProcessLost as error:
                self._problems.report(Kind.NETWORK, str(error), error=True)
                raise

    def predict_together(self, queries: Sequence[Query]) -> list[Prediction] | None:
        """All predictions in one run of the network; None if they have to be made one by one."""
        if len(queries) < 2 or not self.takes_batches:
            return None
        with self._lock:
            try:
                return self.estimator.predict_batch(queries)
            except ProcessLost as error:
                self._problems.report(Kind.NETWORK, str(error), error=True)
                return None  # one by one it shows which image was to blame
            except InputError:
                return None  # one of them is wrong; alone, it is only that camera's problem
            except Exception as error:  # more than the backend, or its memory, was made for
                self.takes_batches = False
                self._problems.report(Kind.BATCH, f"images of several cameras are predicted one by one: {error}")
                return None

    def check(self, prediction: Prediction) -> None:
        """A network that computes no numbers becomes a problem, as damaged weights or a driver's fault make it."""
        empty = [
            name
            for name in ("depth", "depth_relative", "normals", "confidence", "alpha", "flow")
            if _is_nan(getattr(prediction, name))
        ]
        if empty:
            names = ", ".join(empty)
            self._problems.report(Kind.NETWORK, f"the network's answer is not a number anywhere: {names}", error=True)
        else:
            self._problems.clear(Kind.NETWORK)


def _is_nan(values: object) -> bool:
    """Whether an array has no number at all; usually a few of its pixels tell."""
    if not isinstance(values, np.ndarray) or values.size == 0:
        return False
    return bool(np.isnan(values[::16, ::16]).all()) and bool(np.isnan(values).all())
