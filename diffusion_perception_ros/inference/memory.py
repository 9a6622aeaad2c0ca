"""Keeps the memory of one frame for the next, and gives it back when frames become smaller."""

from __future__ import annotations

import ctypes
import functools
from typing import Any


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""Names of <malloc.h>."""


def keep_freed_memory() -> None:
    """Asks glibc not to hand freed maps back to the kernel; elsewhere this does nothing.

    A prediction on a VGA image fills and frees some 8 MB of maps. By default glibc returns them to the kernel with
    every frame, and faulting them in again, page by page, takes longer than computing their contents. This holds for
    the whole process, which keeps up to 256 MB more than it uses. To be called before threads are started: each would
    have a heap of its own, for which these settings do not hold.
    """
    library = _libc()
    if library is None:
        return
    library.mallopt(_M_ARENA_MAX, 1)
    library.mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # blocks up to this size come from the heap; glibc's own upper limit
    library.mallopt(_M_TRIM_THRESHOLD, 256 << 20)


def give_freed_memory_back() -> None:
    """Hands all freed memory to the kernel, after something large that will not come again."""
    library = _libc()
    if library is not None:
        library.malloc_trim(0)


@functools.cache
def _libc() -> Any:
    """glibc, None where there is another C library."""
    try:
        library = ctypes.CDLL("libc.so.6")
        _ = library.mallopt, library.malloc_trim
    except (OSError, AttributeError):
        return None
    return library
