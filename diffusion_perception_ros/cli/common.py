"""What the commands share: arguments that choose a model, the progress bar, and where tables are printed."""

from __future__ import annotations

import argparse
import os
import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from diffusion_perception_ros.inference.backends import BACKENDS
from diffusion_perception_ros.inference.models import DEFAULT_MODEL


def add_model_argument(parser: argparse.ArgumentParser) -> None:
    """`--model`, with the bundled model as the default."""
    parser.add_argument("--model", default=DEFAULT_MODEL, help="name or folder of a model (default: %(default)s)")


def add_backend_arguments(parser: argparse.ArgumentParser, threads: bool = True) -> None:
    """`--backend` and, where the command runs the network itself, `--threads`."""
    parser.add_argument(
        "--backend", default="auto", choices=BACKENDS, help="what runs the model (default: %(default)s)"
    )
    if threads:
        parser.add_argument("--threads", type=int, default=0, metavar="N", help="CPU threads, 0 = all cores")


def progress_bar() -> Progress:
    """A bar on standard error that is gone when the work is done, with a count and the time that remains."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


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
