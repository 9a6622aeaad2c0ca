"""One thread that works on the newest item of every source in turn, so that the executor stays free for services."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar


Item = TypeVar("Item")


class FairWorker(Generic[Item]):
    """Hands items to `work` in its own thread. An item that still waits when its source has a newer one is dropped.

    Of the sources with a waiting item, those come first whose turn is longest ago: a fast source cannot starve a slow
    one, whose item waits for at most one item of each other source.
    """

    def __init__(self, sources: Iterable[str], work: Callable[[Sequence[tuple[str, Item]]], None], most: int) -> None:
        """`work` gets up to `most` items of different sources, each with the name of its source; it must not raise."""
        self._work, self._most = work, most
        self._order = list(sources)
        """Whose turn is longest ago comes first."""
        self._waiting: dict[str, Item] = {}
        self._stopping = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="fair-worker", daemon=True)
        self._thread.start()

    def offer(self, source: str, item: Item) -> bool:
        """Leaves an item for the thread; True if that replaced an older one of the same source."""
        with self._changed:
            replaced = source in self._waiting
            self._waiting[source] = item
            self._changed.notify()
        return replaced

    def stop(self) -> None:
        """Ends the thread after the items in work; waiting ones are forgotten."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._waiting)
                if self._stopping:
                    return
                items = self._take()
            self._work(items)

    def _take(self) -> list[tuple[str, Item]]:
        sources = [source for source in self._order if source in self._waiting][: self._most]
        self._order = [source for source in self._order if source not in sources] + sources
        return [(source, self._waiting.pop(source)) for source in sources]
