"""A signal that comes while an executable still loads its libraries, which takes seconds on a small computer."""

from __future__ import annotations

import os
import signal


def end_quietly() -> None:
    """SIGINT and SIGTERM end the process at once with exit code 0, until `running.Ending` takes over.

    There is nothing to lose yet, and Python would answer with a traceback from wherever it is in an import.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))
