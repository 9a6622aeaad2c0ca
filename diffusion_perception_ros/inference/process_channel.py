"""Objects with arrays from one process to another: small parts through a socket, arrays through shared memory."""

from __future__ import annotations

import mmap
import os
import pickle
from multiprocessing.connection import Connection
from typing import Any


class Closed(Exception):
    """The other process has gone."""


class ProcessChannel:
    """One end. A message is taken before the other end sends its next one, as in a call and its answer.

    The memory has no name, so that nothing is left of it however the processes end.
    """

    def __init__(self, connection: Connection, outgoing: int, incoming: int) -> None:
        """`outgoing` and `incoming`: file descriptors of the memory for each direction, from `os.memfd_create`."""
        self._connection = connection
        self._files = outgoing, incoming
        self._memory: dict[int, mmap.mmap] = {}

    def send(self, message: object) -> None:
        """Raises Closed if nobody is there to get it."""
        buffers: list[pickle.PickleBuffer] = []
        data = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
        views = [buffer.raw() for buffer in buffers]
        sizes = [view.nbytes for view in views]
        file = self._files[0]
        memory = self._mapped(file, sum(sizes), grow=True)
        start = 0
        for view, size in zip(views, sizes, strict=True):
            memory[start : start + size] = view
            start += size
        try:
            self._connection.send((data, sizes))
        except (OSError, ValueError) as error:
            raise Closed(str(error)) from error

    def receive(self, seconds: float | None = None) -> Any:
        """The next message; its arrays have memory of their own.

        Raises:
            TimeoutError: none has come within so many seconds; None = wait for ever.
            Closed: the other end has gone.
        """
        try:
            if not self._connection.poll(seconds):
                raise TimeoutError
            data, sizes = self._connection.recv()
        except (EOFError, ConnectionError) as error:
            raise Closed("the other process has ended") from error
        memory = self._mapped(self._files[1], sum(sizes), grow=False)
        buffers, start = [], 0
        for size in sizes:
            buffers.append(bytearray(memory[start : start + size]))
            start += size
        return pickle.loads(data, buffers=buffers)

    def close(self) -> None:
        """Gives everything back."""
        self._connection.close()
        for memory in self._memory.values():
            memory.close()
        for file in self._files:
            os.close(file)

    def _mapped(self, file: int, size: int, grow: bool) -> mmap.mmap:
        present = self._memory.get(file)
        if present is not None and len(present) >= size:
            return present
        if present is not None:
            present.close()
        size = max(size, mmap.PAGESIZE)
        if grow and os.fstat(file).st_size < size:
            os.ftruncate(file, size)
        self._memory[file] = mmap.mmap(file, os.fstat(file).st_size)
        return self._memory[file]
