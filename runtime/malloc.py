"""Keep large activations in the heap instead of mapping and unmapping each (glibc only).

glibc serves a big request with `mmap` and gives it back with `munmap`, so every step of a detector faults all of
its activations in again: at 800x1333 that is over a second of system time an image. With mapping off and trimming
far away the pages stay with the process and are used again.
"""

from __future__ import annotations

import ctypes
import os
import platform
from functools import cache

# <malloc.h>
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -3, -4, -8
_KEEP_BYTES = (1 << 31) - 1  # mallopt takes an int


@cache
def keep_large_blocks() -> bool:
    """Tune the allocator of this process; idempotent.

    Returns:
        True if it was tuned; False where there is no glibc, or where `DETC_MALLOC=0` says to leave it.
    """
    if os.environ.get("DETC_MALLOC") == "0" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    # A threshold above 32 MB is refused by glibc, so mapping is turned off by its count. One arena: blocks freed
    # by one thread are then found by the next one that asks.
    settings = [(_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _KEEP_BYTES), (_M_TOP_PAD, 64 << 20), (_M_ARENA_MAX, 1)]
    taken = [
        mallopt(option, value) == 1 for option, value in settings
    ]  # all are tried, whatever the first says
    return all(taken)
