"""Folders that appear complete or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffusion_perception_ros.errors import InputError


@contextmanager
def replacing_folder(output: Path, overwrite: bool) -> Iterator[Path]:
    """A temporary folder beside `output` that takes its place when the block succeeds, and vanishes when it fails.

    Raises:
        InputError: `output` exists and `overwrite` is not set, or it cannot be written.
    """
    if output.exists() and not overwrite:
        raise InputError(f"{output} exists already: choose another folder or give --overwrite")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    except OSError as error:
        raise InputError(f"{output} cannot be written: {error.strerror or error}") from error
    try:
        yield temporary
        temporary.chmod(0o755)
        if output.exists():
            old = temporary.with_name(temporary.name + ".old")
            os.replace(output, old)
            os.replace(temporary, output)
            shutil.rmtree(old)
        else:
            os.replace(temporary, output)
    except OSError as error:
        raise InputError(f"{output} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
