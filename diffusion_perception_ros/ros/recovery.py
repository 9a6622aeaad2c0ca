"""What the node does about a network that hangs: it is given up, and the node starts again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from diffusion_perception_ros.errors import InputError
from diffusion_perception_ros.ros.job import Job
from diffusion_perception_ros.ros.log import Log
from diffusion_perception_ros.ros.parameters import PerceptionParameters
from diffusion_perception_ros.ros.pipeline import Pipeline
from diffusion_perception_ros.ros.problems import Kind, Problems
from diffusion_perception_ros.ros.watchdog import Watchdog
from diffusion_perception_ros.ros.worker import FairWorker


FIRST_PAUSE, LAST_PAUSE = 1.0, 60.0
"""Seconds until the node starts again after its network hung; they double from one time to the next."""
MOST_HANGING = 3
"""Networks that may hang at a time until the node stays as it is: each keeps its memory and a thread."""


class Recovery:
    """Looks at the worker now and then, in the executor's thread."""

    def __init__(
        self, watchdog: Watchdog, problems: Problems, log: Log, leave: Callable[[], None], start: Callable[[], None]
    ) -> None:
        """`leave` takes the node to unconfigured, `start` configures and activates it; both in the background."""
        self._watchdog, self._problems, self._log = watchdog, problems, log
        self._leave, self._start = leave, start
        self._hanging: list[FairWorker[Job]] = []
        """Workers that were given up and have not come back."""
        self._pause, self._start_at = FIRST_PAUSE, 0.0

    def look(
        self,
        worker: FairWorker[Job] | None,
        pipeline: Pipeline | None,
        settings: PerceptionParameters,
        state: Callable[[], str],
    ) -> None:
        """To be called while no transition is under way; `state` is the node's."""
        self._hanging = [item for item in self._hanging if item.in_work is not None]
        present = worker.in_work if worker is not None else None
        if worker is not None and pipeline is not None and present is not None:
            seconds, items = present
            if seconds > self._longest(pipeline, settings):
                self._give_up(worker, pipeline, settings, seconds, items)
        elif self._start_at and time.monotonic() >= self._start_at:
            self._start_at = 0.0
            if state() == "unconfigured":
                self._log.event("starting again after the network hung")
                self._start()

    def _longest(self, pipeline: Pipeline, settings: PerceptionParameters) -> float:
        """Seconds after which a thread is given up; a process of the network's own is killed before, and loads."""
        limit = self._watchdog.limit
        return 2 * limit + settings.load_timeout if pipeline.is_isolated else limit

    def _give_up(
        self,
        worker: FairWorker[Job],
        pipeline: Pipeline,
        settings: PerceptionParameters,
        seconds: float,
        items: Sequence[tuple[str, Job]],
    ) -> None:
        """Leaves the hanging thread alone; from unconfigured the node can start again."""
        self._hanging.append(worker)
        starts = settings.autostart and len(self._hanging) < MOST_HANGING
        remedy = (
            f"the node starts again in {self._pause:g} s"
            if starts
            else "configure and activate the node again, or start it anew"
        )
        self._problems.report(
            Kind.NETWORK,
            f"the network has not answered for {seconds:.1f} s on {items[0][1].where}, which is longer than "
            f"{self._watchdog.limit:.1f} s (watchdog_seconds): it is given up; {remedy}",
            error=True,
        )
        pipeline.reject(items, InputError("the network did not answer"))
        self._leave()
        if starts:
            self._start_at = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, LAST_PAUSE)
