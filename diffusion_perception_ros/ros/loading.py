"""Loading a model beside everything else, within a limit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.inference.backends.backend import Report
from diffusion_perception_ros.inference.estimator import Estimator
from diffusion_perception_ros.inference.remote_estimator import RemoteEstimator
from diffusion_perception_ros.ros.parameters import PerceptionParameters
from diffusion_perception_ros.ros.sampling import check_sampling


Value = TypeVar("Value")


class Loading:
    """One piece of work that may take minutes, in a thread of its own, and what is known of how far it is."""

    def __init__(self, what: str, limit: float) -> None:
        """`what`: names it in sentences; `limit`: seconds that it may take."""
        self._what, self._limit = what, limit
        self._start = time.monotonic()
        self._stage = ""
        self.is_cancelled = False

    def __str__(self) -> str:
        """For diagnostics."""
        stage = f", {self._stage}" if self._stage else ""
        return f"{self._what}: {time.monotonic() - self._start:.0f} s so far{stage}"

    def report(self, share: float, stage: str) -> None:
        """How much is done, 0 to 1, and what is being done."""
        self._stage = f"{100 * share:.0f} % ({stage})"

    def run(self, work: Callable[[], Value]) -> Value:
        """Waits for the work's result.

        Raises:
            InputError: it takes longer than the limit, or was cancelled; its thread is left alone then.
            Exception: what the work raised.
        """
        results: list[Value] = []
        errors: list[BaseException] = []
        done = threading.Event()

        def target() -> None:
            try:
                results.append(work())
            except BaseException as error:
                errors.append(error)
            finally:
                done.set()

        threading.Thread(target=target, name="loading", daemon=True).start()
        while not done.wait(0.2):
            if self.is_cancelled:
                raise InputError(f"{self._what} was cancelled")
            if time.monotonic() - self._start > self._limit:
                raise InputError(
                    f"{self._what} has taken longer than {self._limit:g} s (load_timeout) and is given up"
                )
        if errors:
            raise errors[0] if isinstance(errors[0], Exception) else RuntimeError(repr(errors[0]))
        return results[0]


def load_estimator(
    settings: PerceptionParameters, report: Report, limit: Callable[[], float]
) -> Estimator | RemoteEstimator:
    """The model of the parameters, ready for its first image; in a process of its own it has `limit` for an answer."""
    arguments: dict[str, Any] = {
        "name_or_path": settings.model,
        "backend": settings.backend,
        "threads": settings.threads,
        "engine_precision": settings.engine_precision,
    }
    if settings.isolation == "process":
        remote = RemoteEstimator(settings.load_timeout, limit, settings.warm_up, **arguments)
        check_sampling(remote, settings)
        return remote
    estimator = Estimator.load(**arguments, report=report)
    check_sampling(estimator, settings)
    if settings.warm_up:
        estimator.warm_up()
    return estimator
