"""What `perception_node` counts of one camera, and what is wrong with it."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rclpy.qos import qos_policy_name_from_kind

from diffusion_perception_ros.ros.log import Log
from diffusion_perception_ros.ros.problems import Kind, Problems


WINDOW = 5.0
"""Seconds over which rates and latencies are given."""


@dataclass
class Counts:
    """Images since the last activation."""

    received: int = 0
    """That arrived."""
    predicted: int = 0
    """That got a prediction."""
    dropped: int = 0
    """Replaced by a newer one while the network was busy."""
    skipped: int = 0
    """That nobody wanted, above max_rate, or older than the last one."""
    rejected: int = 0
    """That could not be used."""


class Statistics:
    """Counters since the last activation, and the recent past. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = Counts()
        self._start = time.monotonic()
        self._arrivals: deque[float] = deque(maxlen=1000)
        self._predictions: deque[tuple[float, float]] = deque(maxlen=1000)
        self.last_error = ""

    @property
    def counts(self) -> Counts:
        """As they are now."""
        with self._lock:
            return Counts(**vars(self._counts))

    def arrived(self) -> None:
        """An image came."""
        with self._lock:
            self._counts.received += 1
            self._arrivals.append(time.monotonic())

    def predicted(self, latency: float) -> None:
        """An image was predicted and published, `latency` seconds after it came."""
        with self._lock:
            self._counts.predicted += 1
            self._predictions.append((time.monotonic(), latency))

    def dropped(self) -> None:
        """A newer image took the place of one that waited."""
        with self._lock:
            self._counts.dropped += 1

    def skipped(self) -> None:
        """An image was not wanted."""
        with self._lock:
            self._counts.skipped += 1

    def rejected(self, reason: str) -> None:
        """An image could not be used."""
        with self._lock:
            self._counts.rejected += 1
            self.last_error = reason

    @property
    def age(self) -> float:
        """Seconds since the activation."""
        return time.monotonic() - self._start

    @property
    def since_last_arrival(self) -> float:
        """Seconds, infinite before the first image."""
        with self._lock:
            return time.monotonic() - self._arrivals[-1] if self._arrivals else math.inf

    def recent(self) -> tuple[list[float], list[tuple[float, float]]]:
        """Within the window: moments of arrival, and (moment, latency) of predictions."""
        now = time.monotonic()
        with self._lock:
            arrivals = [moment for moment in self._arrivals if now - moment < WINDOW]
            return arrivals, [entry for entry in self._predictions if now - entry[0] < WINDOW]


def summed(statistics: Sequence[Statistics]) -> Counts:
    """Counts of several cameras."""
    counts = [vars(entry.counts) for entry in statistics]
    return Counts(**{name: sum(entry[name] for entry in counts) for name in vars(Counts())})


class Monitor:
    """Problems and statistics of one camera."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.restart()

    def restart(self) -> None:
        """Forgets everything, as when the node is activated."""
        self.problems = Problems(self._log)
        self.statistics = Statistics()

    def reject(self, where: str, reason: str) -> None:
        """An image could not be used."""
        self.statistics.rejected(f"{where}: {reason}")
        self.problems.report(Kind.IMAGE, reason, where, error=True)

    def incompatible_qos(self, topic: str, event: Any) -> None:
        """The other end of a topic asks for or offers a QoS that does not match ours."""
        try:
            policy = qos_policy_name_from_kind(event.last_policy_kind)
        except ValueError:
            policy = f"policy {event.last_policy_kind}"
        self.problems.report(Kind.QOS.of(topic), f"incompatible QoS on {topic}: {policy} differs at the other end")
