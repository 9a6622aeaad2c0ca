"""What is wrong with a node or one of its cameras, for diagnostics and the log."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from enum import Enum

from diffusion_perception_ros.ros.log import Log, Severity, shortened


_MOST = 100
"""Problems that are remembered at a time."""


class Kind(str, Enum):
    """What a problem is about. A newer problem takes the place of the last one of its kind."""

    IMAGE = "image"
    STAMPS = "stamps"
    CAMERA_INFO = "camera_info"
    CAMERA_INFO_FRAME = "camera_info frame"
    SPARSE_DEPTH = "sparse depth"
    GROUND_PLANE = "ground plane"
    PROMPT = "prompt"
    BATCH = "batch"
    CONFIGURE = "configure"
    ACTIVATE = "activate"
    NETWORK = "network"
    """It does not answer, dies or computes no numbers."""
    WORKER = "worker"
    CALLBACK = "callback"
    QOS = "qos"
    """Of a topic: the key is `Kind.QOS.of(topic)`."""
    OUTPUT = "output"
    """Of a topic: its message cannot be made or published."""
    READER = "reader"
    """Publishing takes long, as when a reader is stopped."""
    NAME = "name"
    """Another node has this node's name."""

    def of(self, topic: str) -> str:
        """The key of a problem that every topic can have."""
        return f"{self.value} {topic}"


class Problems:
    """Things that are wrong, by kind. Each is logged as `log` admits. No call raises; any thread may call."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._seen: OrderedDict[str, tuple[str, float]] = OrderedDict()
        """Kind to its latest reason and when that was."""

    def report(self, kind: str, reason: str, where: str = "", error: bool = False) -> None:
        """Something happened, perhaps again. `where` says to which frame; `error`: it is not only a warning."""
        key, reason = _key(kind), shortened(reason)
        with self._lock:
            self._seen[key] = reason, time.monotonic()
            self._seen.move_to_end(key)
            while len(self._seen) > _MOST:
                self._seen.popitem(last=False)
        text = f"{shortened(where)}: {reason}" if where else reason
        self._log.write(Severity.ERROR if error else Severity.WARNING, text, key)

    def clear(self, kind: str) -> None:
        """It is right again."""
        with self._lock:
            self._seen.pop(_key(kind), None)

    def current(self, kinds: Iterable[str], within: float = math.inf) -> list[str]:
        """Reasons of those kinds that were not cleared and happened in the last seconds."""
        now = time.monotonic()
        with self._lock:
            seen = [self._seen[key] for key in map(_key, kinds) if key in self._seen]
        return [reason for reason, last in seen if now - last < within]


def _key(kind: str) -> str:
    return kind.value if isinstance(kind, Kind) else kind
