"""Progress of a build that takes minutes, from the phases that TensorRT reports."""

from __future__ import annotations

import logging
import time

from diffusion_perception_ros.inference.backends.backend import Report


_log = logging.getLogger(__name__)


class BuildProgress:
    """Adds nested phases up to one share of the whole. TensorRT calls it from several threads, one call at a time."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._steps: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._parents: dict[str, str] = {}
        self._share = 0.0

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        """A phase of `steps` steps begins; it is one step of its parent."""
        self._steps[phase] = max(steps, 1)
        self._done[phase] = 0
        if parent is not None and parent in self._steps:
            self._parents[phase] = parent
        else:
            self._parents.pop(phase, None)
        self._update(phase)

    def step(self, phase: str, step: int) -> None:
        """The step of this number, from 0, is finished."""
        if phase in self._steps:
            self._done[phase] = min(step + 1, self._steps[phase])
            self._update(phase)

    def finish(self, phase: str) -> None:
        """A phase ends, however many steps are left of it."""
        if phase in self._steps:
            self._done[phase] = self._steps[phase]
            self._update(phase)
            del self._steps[phase], self._done[phase]
            self._parents.pop(phase, None)

    def _update(self, phase: str) -> None:
        # A parent counts a step when it is finished; until then the child's share of that step is added.
        share, name = self._done[phase] / self._steps[phase], phase
        while (parent := self._parents.get(name)) is not None and parent in self._steps:
            share = min((self._done[parent] + share) / self._steps[parent], 1.0)
            name = parent
        self._share = max(self._share, share)
        self._report(self._share, phase)


def log_report(interval: float = 20.0) -> Report:
    """A report that writes a line to the log every `interval` seconds."""
    last = time.monotonic()

    def report(share: float, phase: str) -> None:
        nonlocal last
        if time.monotonic() - last >= interval:
            last = time.monotonic()
            _log.warning("building the TensorRT engine: %.0f %% (%s)", 100 * share, phase)

    return report
