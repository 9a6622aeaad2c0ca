"""Child processes with a log file each, none of which outlives the command that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from diffusion_perception_ros.errors import InputError


STOP_SIGNALS = ((signal.SIGINT, 10.0), (signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0))
"""What the children get, and the seconds they have to react. SIGINT first: ROS processes then free shared memory."""
LOG_TAIL = 15


class ChildError(Exception):
    """A child process ended in a way it should not have. The message names it and shows the end of its log."""


@dataclass
class Child:
    """A running program."""

    name: str
    process: subprocess.Popen[str]
    log: Path
    """Its standard output and error."""

    def check(self) -> None:
        """Raises ChildError if it has ended."""
        if self.process.poll() is not None:
            raise self.failure(f"ended with exit code {self.process.returncode} although it was still needed")

    def wait(self, timeout: float, others: Sequence[Child] = (), success: Sequence[int] = (0,)) -> int:
        """Waits for its end while `others` must keep running; its exit code.

        Raises:
            ChildError: another exit code than those of `success`, no end in time, or one of the others ended.
        """
        deadline = time.monotonic() + timeout
        while self.process.poll() is None:
            for other in others:
                other.check()
            if time.monotonic() > deadline:
                raise self.failure(f"did not end within {timeout:.0f} s")
            time.sleep(0.05)
        if self.process.returncode not in success:
            raise self.failure(f"failed with exit code {self.process.returncode}")
        return self.process.returncode

    def output(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def failure(self, what: str) -> ChildError:
        """An error about it."""
        tail = "\n".join(f"  | {line}" for line in self.output().splitlines()[-LOG_TAIL:])
        return ChildError(f"{self.name} {what}; the end of {self.log}:\n{tail or '  | (empty)'}")


@contextmanager
def children(logs: Path, environment: Mapping[str, str]) -> Iterator[Children]:
    """Starts children inside the block and ends all of them after it, also when this process is told to end.

    Raises:
        InputError: the folder for the logs cannot be written.
    """
    try:
        logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{logs} cannot be written: {error.strerror}; choose another folder") from error
    group = Children(logs, dict(environment))
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield group
    finally:
        signal.signal(signal.SIGTERM, before)
        group.stop()


class Children:
    """The children of one `children` block."""

    def __init__(self, logs: Path, environment: dict[str, str]) -> None:
        self.logs, self.environment = logs, environment
        self.running: list[Child] = []

    def start(self, name: str, module: str, arguments: Sequence[str]) -> Child:
        """Runs a module of this package with the same interpreter, in a session of its own."""
        path = self.logs / f"{name}.log"
        with path.open("w", encoding="utf-8") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                env=self.environment,
                start_new_session=True,
            )
        child = Child(name, process, path)
        self.running.append(child)
        return child

    def stop(self) -> None:
        """Ends all of them and whatever they started, gently at first."""
        for number, seconds in STOP_SIGNALS:
            alive = [child.process for child in self.running if child.process.poll() is None]
            for process in alive:
                os.killpg(process.pid, number)
            deadline = time.monotonic() + seconds
            for process in alive:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
