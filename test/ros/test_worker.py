"""The worker that serves several cameras, and what watches over it: problems, log, order of stamps, watchdog."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, cast

import pytest

from diffusion_perception_ros.ros.log import Log
from diffusion_perception_ros.ros.problems import Kind, Problems
from diffusion_perception_ros.ros.stamp_order import StampOrder
from diffusion_perception_ros.ros.watchdog import LEAST, UNKNOWN, Watchdog
from diffusion_perception_ros.ros.worker import FairWorker


PATIENCE = 30.0


class Gate:
    """A worker whose work stands still until it is let through."""

    def __init__(self, most: int) -> None:
        self.seen: list[list[tuple[str, int]]] = []
        self._arrived, self._passes = threading.Semaphore(0), threading.Semaphore(0)
        self.worker = FairWorker(("front", "left", "rear"), self._work, most)

    def _work(self, items: Sequence[tuple[str, int]]) -> None:
        self.seen.append(list(items))
        self._arrived.release()
        self._passes.acquire()

    def wait(self) -> None:
        """Until the worker has taken something."""
        assert self._arrived.acquire(timeout=PATIENCE)

    def let_through(self, times: int = 1) -> None:
        self._passes.release(times)

    def close(self) -> None:
        self.let_through(100)
        self.worker.stop()


@pytest.fixture
def gate(request: pytest.FixtureRequest) -> Iterator[Gate]:
    gate = Gate(getattr(request, "param", 1))
    yield gate
    gate.close()


def test_only_the_newest_item_of_a_source_waits(gate: Gate) -> None:
    assert not gate.worker.offer("front", 0)
    gate.wait()
    replaced = [gate.worker.offer("front", number) for number in (1, 2, 3)]
    assert replaced == [False, True, True]
    gate.let_through()
    gate.wait()
    assert gate.seen == [[("front", 0)], [("front", 3)]]


def test_a_fast_source_does_not_starve_a_slow_one(gate: Gate) -> None:
    """However often `front` and `left` offer something new, `rear` waits for at most one item of each."""
    gate.worker.offer("front", 0)
    gate.wait()
    gate.worker.offer("rear", 100)
    for number in range(1, 4):
        gate.worker.offer("left", number)
        gate.worker.offer("front", number)
        gate.let_through()
        gate.wait()
    assert [items[0] for items in gate.seen] == [("front", 0), ("left", 1), ("rear", 100), ("front", 3)]


@pytest.mark.parametrize("gate", [2], indirect=True)
def test_sources_that_wait_together_are_served_together(gate: Gate) -> None:
    gate.worker.offer("front", 0)
    gate.wait()
    for source in ("front", "rear", "left"):
        gate.worker.offer(source, 1)
    gate.let_through()
    gate.wait()
    gate.let_through()
    gate.wait()
    assert gate.seen[1:] == [[("left", 1), ("rear", 1)], [("front", 1)]]


def test_nothing_is_worked_on_after_the_stop(gate: Gate) -> None:
    gate.worker.offer("front", 0)
    gate.wait()
    gate.let_through()
    gate.worker.stop()
    gate.worker.offer("left", 1)
    assert gate.seen == [[("front", 0)]]


@pytest.mark.parametrize("error", [RuntimeError("broken"), SystemExit(3), MemoryError(), KeyboardInterrupt()])
def test_whatever_the_work_raises_is_told_and_the_thread_goes_on(error: BaseException) -> None:
    told: list[tuple[object, BaseException]] = []
    done = threading.Event()

    def work(items: Sequence[tuple[str, int]]) -> None:
        if items[0][1] == 0:
            raise error
        done.set()

    def on_failure(items: Sequence[tuple[str, int]], raised: BaseException) -> None:
        told.append((items, raised))
        raise ValueError("telling fails, too")

    worker: FairWorker[int] = FairWorker(("front",), work, 1, on_failure)
    worker.offer("front", 0)
    deadline = time.monotonic() + PATIENCE
    while not told and time.monotonic() < deadline:
        time.sleep(0.01)
    worker.offer("front", 1)
    assert done.wait(PATIENCE)
    assert told == [([("front", 0)], error)]
    worker.stop()
    assert worker.join(PATIENCE)


def test_nobody_waits_for_work_that_never_returns(gate: Gate) -> None:
    gate.worker.offer("front", 0)
    gate.wait()
    gate.worker.stop()
    assert gate.worker.in_work is not None
    assert gate.worker.in_work[1] == [("front", 0)]
    assert not gate.worker.join(0)


class Logger:
    """Counts lines, as rclpy's logger refuses a severity that changes within one line of the source."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.is_broken = False

    def _log(self, severity: str, text: str) -> None:
        if self.is_broken:
            raise ValueError("Logger severity cannot be changed between calls.")
        self.lines.append((severity, text))

    def info(self, text: str) -> None:
        self._log("info", text)

    def warning(self, text: str) -> None:
        self._log("warning", text)

    def error(self, text: str) -> None:
        self._log("error", text)


def test_the_log_has_a_budget_and_never_raises(capsys: pytest.CaptureFixture[str]) -> None:
    logger = Logger()
    problems = Problems(Log(cast(Any, logger)))
    for number in range(1000):
        problems.report(
            Kind.IMAGE, f"encoding {'ab'[number % 2] * (number // 2 + 1)}\x1b[31m\n", "image 1", error=True
        )
        problems.report(Kind.CAMERA_INFO, f"not calibrated ({number})")
    assert len(logger.lines) <= 11
    assert {severity for severity, _ in logger.lines} == {"warning", "error"}
    assert all(text.isprintable() and len(text) < 700 for _, text in logger.lines)
    logger.is_broken = True
    problems.report(Kind.NETWORK, "it hangs", error=True)
    assert "it hangs" in capsys.readouterr().err
    assert problems.current([Kind.NETWORK]) == ["it hangs"]


def test_what_is_remembered_of_problems_is_bounded() -> None:
    problems = Problems(Log(cast(Any, Logger())))
    for number in range(5000):
        problems.report(Kind.QOS.of(f"/topic{number}"), "incompatible")
    assert sum(bool(problems.current([Kind.QOS.of(f"/topic{number}")])) for number in range(5000)) <= 100


@pytest.mark.parametrize(
    ("seconds", "orders"),
    [
        ([1, 2, 2, 3], "NNNN"),
        ([10, 11, 12, 1, 2, 3], "NNNRNN"),  # a bag of 12 s loops
        ([10, 10.03, 10.028, 10.06, 10.058, 10.09], "NNLNLN"),  # two publishers, 2 ms apart
        ([10, 10.5, 10.1, 10.2, 10.3, 10.4, 10.45, 10.46], "NNLLLLRN"),  # a bag of half a second loops
        ([100, 1, 101, 2, 102, 3, 103], "NRNLNLN"),  # two publishers whose clocks differ
        ([0, 0, 0], "NNN"),
    ],
)
def test_order_of_stamps(seconds: list[float], orders: str) -> None:
    order = StampOrder()
    assert "".join(order.next(stamp).name[0] for stamp in seconds) == orders


def test_the_watchdog_knows_what_is_usual() -> None:
    seconds = 0.0
    watchdog = Watchdog(lambda: seconds)
    assert watchdog.limit == UNKNOWN
    with watchdog.watching("small"):
        pass
    assert watchdog.limit == LEAST
    with watchdog.watching("large"):
        assert watchdog.limit == UNKNOWN
    with watchdog.watching("small"):
        assert watchdog.limit == LEAST
    seconds = 3.0
    assert watchdog.limit == 3.0
    for number in range(1000):
        with watchdog.watching(number):
            pass
