"""Folders that appear complete or not at all, and never take the place of something that is not ours."""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from diffusion_perception_ros.errors import InputError


Identify = Callable[[Path], str]
"""What an existing folder is, in words; raises InputError if it is, or also holds, something that is not ours."""

_ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


def replaced_by(output: Path, overwrite: bool, identify: Identify) -> str | None:
    """What writing the folder `output` would replace, in words; None if nothing is there.

    Raises:
        InputError: `output` exists and `overwrite` is not set, or it is not a folder that `identify` knows.
    """
    if not output.exists():
        return None
    if not overwrite:
        raise InputError(f"{output} exists already: choose another folder or give --overwrite")
    if not output.is_dir():
        raise InputError(f"{output} is a file, which --overwrite does not replace: choose another folder")
    return identify(output) if any(output.iterdir()) else "an empty folder"


@contextmanager
def replacing_folder(output: Path, overwrite: bool, identify: Identify) -> Iterator[Path]:
    """A temporary folder beside `output` that takes its place when the block succeeds, and vanishes when it fails.

    It vanishes as well when the process is told to end (SIGTERM, SIGHUP). What a killed process left behind is removed
    by the next one that writes the same folder.

    Args:
        output: The folder to write.
        overwrite: Whether it may replace an existing folder.
        identify: Says which existing folders it may replace; asked again before the exchange, since the block may have
            taken minutes.

    Raises:
        InputError: `output` exists and may not be replaced, or it cannot be written.
    """
    output = output.resolve()  # a link stays, and its target is replaced
    try:
        _clean_up(output)
        replaced_by(output, overwrite, identify)
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=_prefix(output), dir=output.parent))
    except OSError as error:
        raise _unwritable(output, error) from error
    with _ending_signals_as_exceptions(), _locked(temporary):
        try:
            yield temporary
            temporary.chmod(0o755)
            replaced_by(output, overwrite, identify)
            _exchange(temporary, output)
        except OSError as error:
            raise _unwritable(output, error) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _unwritable(output: Path, error: OSError) -> InputError:
    return InputError(f"{output} cannot be written: {error.strerror or error}")


def _prefix(output: Path) -> str:
    return f".{output.name}.partial-"


def _replaced(output: Path) -> Path:
    """Where the old folder is for the moment between two renames."""
    return output.with_name(f".{output.name}.replaced")


def _exchange(temporary: Path, output: Path) -> None:
    """Puts `temporary` in the place of `output`; signals that end the process wait until it is done."""
    old = _replaced(output)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING_SIGNALS)
    try:
        if output.exists():
            os.replace(output, old)
        try:
            os.replace(temporary, output)
        except OSError:
            if old.exists():
                os.replace(old, output)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _clean_up(output: Path) -> None:
    """Ends what a killed process began: its temporary folders go, the folder that it was replacing comes back."""
    old = _replaced(output)
    if old.is_dir():
        if output.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(old, output)
    for leftover in output.parent.glob(f"{glob.escape(_prefix(output))}*"):
        with suppress(OSError), _locked(leftover):  # another process at work holds the lock
            shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds a folder's lock, which ends with the process.

    Raises:
        OSError: another process holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _ending_signals_as_exceptions() -> Iterator[None]:
    """SIGTERM and SIGHUP raise SystemExit, so that `finally` blocks run, where nobody else handles them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = [number for number in _ENDING_SIGNALS if signal.getsignal(number) == signal.SIG_DFL]

    def end(number: int, _: FrameType | None) -> Any:
        raise SystemExit(128 + number)

    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
