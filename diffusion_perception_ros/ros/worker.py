"""One supervised thread that works on the newest item of every source in turn, so that the executor stays free."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar


Item = TypeVar("Item")


class FairWorker(Generic[Item]):
    """Hands items to `work` in its own thread. An item that still waits when its source has a newer one is dropped.

    Of the sources with a waiting item, those come first whose turn is longest ago: a fast source cannot starve a slow
    one, whose item waits for at most one item of each other source. Whatever `work` raises is told to `on_failure`,
    and the thread goes on with the next item. Nobody waits for the thread: work that never returns costs only it.
    """

    def __init__(
        self,
        sources: Iterable[str],
        work: Callable[[Sequence[tuple[str, Item]]], None],
        most: int,
        on_failure: Callable[[Sequence[tuple[str, Item]], BaseException], None] = lambda items, error: None,
    ) -> None:
        """`work` and `on_failure` get up to `most` items of different sources, each with the name of its source."""
        self._work, self._most, self._on_failure = work, most, on_failure
        self._order = list(sources)
        """Whose turn is longest ago comes first."""
        self._waiting: dict[str, Item] = {}
        self._stopping = False
        self._changed = threading.Condition()
        self._in_work: tuple[float, Sequence[tuple[str, Item]]] | None = None
        self._thread = threading.Thread(target=self._run, name="fair-worker", daemon=True)
        self._thread.start()

    @property
    def in_work(self) -> tuple[float, Sequence[tuple[str, Item]]] | None:
        """The seconds that the present items have been in work, and the items; None while there are none."""
        present = self._in_work
        return None if present is None else (time.monotonic() - present[0], present[1])

    def offer(self, source: str, item: Item) -> bool:
        """Leaves an item for the thread; True if that replaced an older one of the same source."""
        with self._changed:
            replaced = source in self._waiting
            self._waiting[source] = item
            self._changed.notify()
        return replaced

    def stop(self) -> None:
        """Lets the thread end after the items in work, without waiting for that; waiting items are forgotten."""
        with self._changed:
            self._stopping = True
            self._waiting.clear()
            self._changed.notify()

    def join(self, seconds: float) -> bool:
        """Waits for the thread's end after `stop`; False if it still works then."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (items := self._next()) is not None:
            self._in_work = time.monotonic(), items
            try:
                self._work(items)
            except BaseException as error:  # even an exit that some library asks for must not end the thread
                with contextlib.suppress(BaseException):
                    self._on_failure(items, error)
            finally:
                self._in_work = None

    def _next(self) -> list[tuple[str, Item]] | None:
        """Waits for items; None if the thread shall end."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._waiting)
            return None if self._stopping else self._take()

    def _take(self) -> list[tuple[str, Item]]:
        sources = [source for source in self._order if source in self._waiting][: self._most]
        self._order = [source for source in self._order if source not in sources] + sources
        return [(source, self._waiting.pop(source)) for source in sources]
