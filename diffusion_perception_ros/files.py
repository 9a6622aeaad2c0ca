"""Files that are whole or not there: only this module and `folders` rename what they wrote into place."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diffusion_perception_ros.errors import InputError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that becomes `path` when the block succeeds, and vanishes when it fails.

    The temporary name ends like `path`, so that writers which choose a format by the ending choose the same one.

    Raises:
        OSError: the folder cannot be made or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a file as UTF-8; see `write_bytes`."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file by renaming a finished one into place, with the folders above it.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        with whole_file(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}; choose another place") from error


def write_json(path: Path, value: Any) -> None:
    """Writes JSON; NaN and infinities, which JSON lacks, become null.

    Raises:
        InputError: the file cannot be written.
    """
    write_text(path, json.dumps(_plain(value), indent=1, ensure_ascii=False) + "\n")


def json_line(value: Any) -> str:
    """JSON on one line, with null for NaN and infinities."""
    return json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
