"""The worker that serves several cameras: the newest item of each, in turn, several at once where that is allowed."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

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
