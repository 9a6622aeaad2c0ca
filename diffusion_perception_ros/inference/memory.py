"""Keeps the memory of one frame for the next."""

from __future__ import annotations

import ctypes


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Names of <malloc.h>."""


def keep_freed_memory() -> None:
    """Asks glibc not to hand freed maps back to the kernel; elsewhere this does nothing.

    A prediction on a VGA image fills and frees some 8 MB of maps. By default glibc returns them to the kernel with
    every frame, and faulting them in again, page by page, takes longer than computing their contents. This holds for
    the whole process, which keeps up to 256 MB more than it uses.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # blocks up to this size come from the heap; glibc's own upper limit
    mallopt(_M_TRIM_THRESHOLD, 256 << 20)
