"""Whether the stamps of a stream of images go on, start anew, or come from two publishers at once."""

from __future__ import annotations

import time
from enum import Enum


class Order(Enum):
    """What a stamp means after the ones before it."""

    NEXT = "next"
    """Time goes on, or stands still."""
    RESTART = "restart"
    """Time has jumped back and goes on from there, as when a bag loops or a simulation is reset."""
    LATE = "late"
    """The image is older than one that has come: images of two publishers are mixed, or the network shuffles them."""


class StampOrder:
    """Watches the stamps of one camera.

    A jump back by more than a second is a new start at once, unless such a start has just turned out to be a mixture:
    the old time went on as well. What is otherwise older than the newest image is late; `ENOUGH` such images in a row
    are a new start too. So two publishers on one topic cannot make every second image a new start.
    """

    ENOUGH = 5
    JUMP = 1.0
    """Seconds."""
    MISTRUST = 60.0
    """Seconds for which a jump back is not taken for a new start after it turned out to be none."""

    def __init__(self) -> None:
        self._newest: float | None = None
        self._late = 0
        """Images in a row that were late."""
        self._since_restart = self.ENOUGH
        """Images since the last new start."""
        self._left = float("inf")
        """The newest stamp before the last new start."""
        self._mistrust_until = float("-inf")
        self.jump = 0.0
        """Seconds that the last image was older than the newest."""

    def next(self, stamp: float) -> Order:
        """Takes in the stamp of an image, in seconds."""
        newest = self._newest
        self._since_restart = min(self._since_restart + 1, self.ENOUGH + 1)
        if newest is None or stamp >= newest:
            if self._since_restart <= self.ENOUGH and stamp >= self._left:
                self._mistrust_until = time.monotonic() + self.MISTRUST
            self._newest, self._late = stamp, 0
            return Order.NEXT
        self.jump = newest - stamp
        self._late += 1
        trusts = self.jump > self.JUMP and time.monotonic() >= self._mistrust_until
        if not trusts and self._late < self.ENOUGH:
            return Order.LATE
        self._newest, self._left, self._late, self._since_restart = stamp, newest, 0, 0
        return Order.RESTART
