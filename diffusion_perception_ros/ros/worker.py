"""One thread that always works on the newest item, so that the executor stays free for services and parameters."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar


Item = TypeVar("Item")


class LatestWorker(Generic[Item]):
    """Hands items to `work` in its own thread. An item that is still waiting when a newer one comes is dropped."""

    def __init__(self, work: Callable[[Item], None]) -> None:
        """`work` must not raise."""
        self._work = work
        self._waiting: Item | None = None
        self._stopping = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="latest-worker", daemon=True)
        self._thread.start()

    def offer(self, item: Item) -> bool:
        """Leaves an item for the thread; True if that replaced an older one."""
        with self._changed:
            replaced = self._waiting is not None
            self._waiting = item
            self._changed.notify()
        return replaced

    def stop(self) -> None:
        """Ends the thread after the item in work; a waiting one is forgotten."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._waiting is not None)
                if self._stopping:
                    return
                item, self._waiting = self._waiting, None
            assert item is not None
            self._work(item)
