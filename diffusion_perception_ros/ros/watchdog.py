"""How long the work on an image may take before it is taken to hang."""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator


FACTOR = 10.0
"""Times the usual duration that may pass."""
LEAST = 5.0
"""Seconds that may always pass: machines are busy at times."""
UNKNOWN = 60.0
"""Seconds that may pass while nothing is known of images of this form with these parameters."""

FORMS = 32
"""Forms of images whose durations are remembered."""


class Watchdog:
    """Measures the work on images, and says when it takes too long. One thread works, any may ask."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        """`seconds`: the limit, 0 = by what is usual."""
        self._seconds = seconds
        self._lock = threading.Lock()
        self._durations: OrderedDict[Hashable, deque[float]] = OrderedDict()
        """By form; the last is that of the present work."""

    @contextlib.contextmanager
    def watching(self, form: Hashable) -> Iterator[None]:
        """Work on an image; those of one form take about the same time."""
        with self._lock:
            durations = self._durations.setdefault(form, deque(maxlen=20))
            self._durations.move_to_end(form)
            while len(self._durations) > FORMS:
                self._durations.popitem(last=False)
        start = time.monotonic()
        yield
        with self._lock:
            durations.append(time.monotonic() - start)

    @property
    def limit(self) -> float:
        """Seconds that the present work may take."""
        seconds = self._seconds()
        if seconds > 0:
            return seconds
        with self._lock:
            durations = list(next(reversed(self._durations.values()), ()))
        return max(LEAST, FACTOR * statistics.median(durations)) if durations else UNKNOWN
