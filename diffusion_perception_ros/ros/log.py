"""The nodes' log: calls that never raise, and a budget, so that no neighbour can fill a robot's disk."""

from __future__ import annotations

import contextlib
import math
import re
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from enum import Enum
from typing import Any

from rclpy.impl.rcutils_logger import RcutilsLogger


REPEAT = 10.0
"""Seconds until the same words are logged again."""
LIMITS = ((REPEAT, 100), (3600.0, 1000))
"""Seconds, and the lines that may be logged within them by all parts of a node together."""
LINES_PER_SUBJECT = 10
"""Lines about one subject within `REPEAT` seconds, in however many wordings."""
LONGEST = 500
"""Characters of a line; the rest, for example an encoding of a megabyte, is cut."""
_REMEMBERED = 200
"""Wordings, and subjects, whose last times are known."""


class Severity(Enum):
    """Of a line in the log."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def shortened(text: str, longest: int = LONGEST) -> str:
    """`text` in one line of printable characters, at most `longest` of them."""
    cut = text[: 2 * longest]
    plain = "".join(letter if letter.isprintable() else " " for letter in cut)
    return (
        plain if len(plain) <= longest and len(cut) == len(text) else f"{plain[:longest]} ... ({len(text)} characters)"
    )


class LogBudget:
    """Which lines may be logged: the same words every `repeat` seconds, few lines per subject, and so many in all.

    Other numbers in the same words are nothing new. Safe to use from several threads; what it remembers is bounded.
    """

    def __init__(self, repeat: float = REPEAT, limits: Sequence[tuple[float, int]] = LIMITS) -> None:
        self._repeat = repeat
        self._lock = threading.Lock()
        self._last: OrderedDict[str, float] = OrderedDict()
        """Wording to when it was last logged."""
        self._subjects: OrderedDict[str, deque[float]] = OrderedDict()
        self._all = [(seconds, deque[float](maxlen=lines)) for seconds, lines in limits]
        self._left_out = 0

    def admits(self, text: str, subject: str = "", again: bool = False) -> str | None:
        """What to add to a line that may be logged, None if it may not.

        `subject`: what it is about; without one only the other limits hold. `again`: the same words are something new.
        """
        now, wording = time.monotonic(), re.sub(r"\d+", "", text[:LONGEST])
        with self._lock:
            if not again and now - self._last.get(wording, -math.inf) < self._repeat:
                return None
            limits = list(self._all)
            if subject:
                limits.append((self._repeat, self._of_subject(subject)))
            if any(len(times) == times.maxlen and now - times[0] < seconds for seconds, times in limits):
                self._left_out += 1
                return None
            for _, times in limits:
                times.append(now)
            self._last[wording] = now
            self._last.move_to_end(wording)
            _prune(self._last)
            left_out, self._left_out = self._left_out, 0
        return f" ({left_out} other lines were left out)" if left_out else ""

    def _of_subject(self, subject: str) -> deque[float]:
        times = self._subjects.setdefault(subject, deque(maxlen=LINES_PER_SUBJECT))
        self._subjects.move_to_end(subject)
        _prune(self._subjects)
        return times


def _prune(entries: OrderedDict[str, Any]) -> None:
    while len(entries) > _REMEMBERED:
        entries.popitem(last=False)


class Log:
    """A node's log. No call raises, whatever the text, the thread or the state of the process."""

    def __init__(self, logger: RcutilsLogger, budget: LogBudget | None = None) -> None:
        """`budget`: shared by the parts of a node; None = one of its own."""
        self._logger = logger
        self.budget = budget or LogBudget()

    def child(self, name: str) -> Log:
        """The log of a part of the node, with the same budget."""
        return Log(self._logger.get_child(name), self.budget) if name else self

    def event(self, text: str) -> None:
        """Something that happened to the node, such as a transition: the same words are a new event."""
        self.write(Severity.INFO, text, again=True)

    def info(self, text: str) -> None:
        """Something that is as it should be."""
        self.write(Severity.INFO, text)

    def warning(self, text: str, again: bool = False) -> None:
        """Something that somebody should look at; `again`: also if it was said just now."""
        self.write(Severity.WARNING, text, again=again)

    def error(self, text: str) -> None:
        """Something that does not work."""
        self.write(Severity.ERROR, text)

    def write(self, severity: Severity, text: str, subject: str = "", again: bool = False) -> None:
        """Logs a line about a subject if the budget admits it."""
        with contextlib.suppress(Exception):  # a log that fails must not take the node with it
            text = shortened(text)
            note = self.budget.admits(text, subject, again)
            if note is not None:
                self._write(severity, text + note)

    def _write(self, severity: Severity, text: str) -> None:
        try:
            # rclpy fixes the severity of a call by its line in the source: one line for each.
            if severity is Severity.ERROR:
                self._logger.error(text)
            elif severity is Severity.WARNING:
                self._logger.warning(text)
            else:
                self._logger.info(text)
        except Exception as error:
            print(f"{text} (the log failed: {error})", file=sys.stderr)
