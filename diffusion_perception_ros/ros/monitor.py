"""What `perception_node` counts and complains about."""

from __future__ import annotations

import math
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.qos import qos_policy_name_from_kind


WINDOW = 5.0
"""Seconds over which rates and latencies are given."""
REPEAT = 10.0
"""Seconds until a complaint that goes on is logged again."""


class Complaints:
    """Things that are wrong, by kind. A reason is logged when it is new, and now and then while it goes on."""

    def __init__(self, logger: RcutilsLogger) -> None:
        self._logger = logger
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[str, float]] = {}
        """Kind to its latest reason and when that was."""
        self._logged: dict[tuple[str, str], float] = {}
        """Kind and wording to when it was last logged. Other numbers in the same words are nothing new."""

    def report(self, kind: str, reason: str, where: str = "", error: bool = False) -> None:
        """Something happened, perhaps again. `where` says to which frame."""
        now = time.monotonic()
        wording = kind, re.sub(r"\d+", "", reason)
        with self._lock:
            self._seen[kind] = reason, now
            is_due = now - self._logged.get(wording, -math.inf) >= REPEAT
            if is_due:
                self._logged[wording] = now
        if is_due:
            log = self._logger.error if error else self._logger.warning
            log(f"{where}: {reason}" if where else reason)

    def clear(self, kind: str) -> None:
        """It is right again."""
        with self._lock:
            self._seen.pop(kind, None)

    def current(self, kinds: Iterable[str], within: float = math.inf) -> list[str]:
        """Reasons of those kinds that were not cleared and happened in the last seconds."""
        now = time.monotonic()
        with self._lock:
            seen = [self._seen[kind] for kind in kinds if kind in self._seen]
        return [reason for reason, last in seen if now - last < within]


@dataclass
class Statistics:
    """Counters since the last activation, and the recent past."""

    counts: Counter[str] = field(default_factory=Counter)
    """`received`, `predicted`, `dropped`, `skipped`, `rejected`. Each is counted by one thread only."""
    last_error: str = ""
    _start: float = field(default_factory=time.monotonic)
    _arrivals: deque[float] = field(default_factory=lambda: deque(maxlen=1000))
    _predictions: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=1000))

    def arrived(self) -> None:
        """An image came."""
        self.counts["received"] += 1
        self._arrivals.append(time.monotonic())

    def predicted(self, latency: float) -> None:
        """An image was predicted and published, `latency` seconds after it came."""
        self.counts["predicted"] += 1
        self._predictions.append((time.monotonic(), latency))

    @property
    def age(self) -> float:
        """Seconds since the activation."""
        return time.monotonic() - self._start

    @property
    def since_last_arrival(self) -> float:
        """Seconds, infinite before the first image."""
        return time.monotonic() - self._arrivals[-1] if self._arrivals else math.inf

    def recent(self) -> tuple[list[float], list[tuple[float, float]]]:
        """Within the window: moments of arrival, and (moment, latency) of predictions."""
        now = time.monotonic()
        arrivals = [moment for moment in tuple(self._arrivals) if now - moment < WINDOW]
        return arrivals, [entry for entry in tuple(self._predictions) if now - entry[0] < WINDOW]


def summary(statistics: Sequence[Statistics]) -> dict[str, str]:
    """Key-value pairs for diagnostics of one camera, or of several together: their rates and counts add up."""
    counts = sum((entry.counts for entry in statistics), Counter())
    arrivals, predictions = zip(*(entry.recent() for entry in statistics), strict=True)
    latencies = sorted(latency for entries in predictions for _, latency in entries)
    return {
        "Events in window": str(len(latencies)),
        "Events since startup": str(counts["predicted"]),
        "Duration of window (s)": f"{WINDOW:.1f}",
        "Actual frequency (Hz)": f"{sum(_rate([moment for moment, _ in entries]) for entries in predictions):.2f}",
        "Image frequency (Hz)": f"{sum(map(_rate, arrivals)):.2f}",
        "Median latency (ms)": f"{latencies[len(latencies) // 2] * 1000:.1f}" if latencies else "",
        "Largest latency (ms)": f"{latencies[-1] * 1000:.1f}" if latencies else "",
        **{f"Frames {name}": str(counts[name]) for name in ("received", "dropped", "skipped", "rejected")},
        "Last error": next((entry.last_error for entry in statistics if entry.last_error), ""),
    }


class Monitor:
    """Complaints and statistics of one camera."""

    def __init__(self, logger: RcutilsLogger) -> None:
        self._logger = logger
        self.restart()

    def restart(self) -> None:
        """Forgets everything, as when the node is activated."""
        self.complaints = Complaints(self._logger)
        self.statistics = Statistics()

    def reject(self, where: str, reason: str) -> None:
        """An image could not be used."""
        self.statistics.counts["rejected"] += 1
        self.statistics.last_error = f"{where}: {reason}"
        self.complaints.report("image", reason, where, error=True)

    def incompatible_qos(self, topic: str, event: Any) -> None:
        """The other end of a topic asks for or offers a QoS that does not match ours."""
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        self.complaints.report(f"qos {topic}", f"incompatible QoS on {topic}: {policy} differs at the other end")


def _rate(moments: list[float]) -> float:
    return (len(moments) - 1) / (moments[-1] - moments[0]) if len(moments) > 1 and moments[-1] > moments[0] else 0.0
