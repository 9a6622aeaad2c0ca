"""Where commands print their tables."""

from __future__ import annotations

import os
import sys

from rich.console import Console


class TableConsole(Console):
    """Standard output: as wide as the terminal, else `width` columns, so that files and pipes are not cut at 80.

    When nobody reads any further (`| head`), what is left of the tables is dropped and the command goes on: it may
    still have files to write.
    """

    def __init__(self, width: int = 140) -> None:
        super().__init__(width=None if sys.stdout.isatty() else width)

    def on_broken_pipe(self) -> None:
        """Called by rich, which would end the process here. Standard output now leads nowhere, so that not even
        flushing it at the end fails (Python's note on SIGPIPE)."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
