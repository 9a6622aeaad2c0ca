"""How much of the budget is used, and the learning rate that goes with it."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from diffusion_perception_ros.training.config import OptimiserConfig, RunConfig


_FINAL_RATE = 0.005
"""Share of the learning rate that is left at the end of the cosine."""
_EXPONENTIAL_RATE = 0.01
"""The same of the exponential decay: `final_ratio` of Marigold, GenPercept and E2E-FT."""


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up over steps, decay over the budget, be it steps or minutes."""

    run: RunConfig
    optimiser: OptimiserConfig

    def progress(self, step: int, seconds: float) -> float:
        """Share of the budget that is used, in [0, 1]."""
        run = self.run
        used = step / run.max_steps if run.max_steps else seconds / (60 * float(run.max_minutes or 1))
        return min(1.0, used)

    def learning_rate(self, step: int, seconds: float) -> float:
        """For the step that comes after `step` steps."""
        warm_up = min(1.0, (step + 1) / max(1, self.optimiser.warmup_steps))
        return self.optimiser.learning_rate * warm_up * self._decay(step, seconds)

    def _decay(self, step: int, seconds: float) -> float:
        """Share of the learning rate that is left."""
        match self.optimiser.decay:
            case "constant":
                return 1.0
            case "exponential":
                steps, before = self.optimiser.decay_steps, self.optimiser.warmup_steps
                used = self.progress(step, seconds)
                if steps is not None:  # from the end of the warm-up on, as Marigold's `IterExponential`
                    used = min(1.0, max(0, step - before) / max(1, steps - before))
                return float(_EXPONENTIAL_RATE**used)
        cosine = 0.5 * (1 + math.cos(math.pi * self.progress(step, seconds)))
        return _FINAL_RATE + (1 - _FINAL_RATE) * cosine

    def average_decay(self, step: int) -> float:
        """Decay of the averaged weights; short at the start, so that they do not remember the initial ones."""
        return min(self.optimiser.ema, (1 + step) / (10 + step))


class StopSignal:
    """Notes SIGTERM and the first Ctrl-C instead of dying of them; a second Ctrl-C interrupts at once."""

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """While in this block. Signals reach the main thread only: elsewhere nothing is noted."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(*_: object) -> None:
            self.asked = True
            signal.signal(signal.SIGINT, before[signal.SIGINT])

        before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
