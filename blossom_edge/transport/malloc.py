"""Tell the C library to reuse the memory of messages, and to give back what it has too much of. Called by commands."""

from __future__ import annotations

import contextlib
import ctypes

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8
MMAP_THRESHOLD_BYTES = 32 * 1024 * 1024
"""The most that glibc takes."""
TRIM_THRESHOLD_BYTES = 2 * 1024 * 1024
"""Sixteen of the largest messages: half of it costs a tenth more time per message, more stays after each round."""
NUM_ARENAS = 1
"""One heap for all threads: Python runs one at a time, and each more keeps free memory of its own."""


def trim_malloc() -> None:
    """Give the heap's free pages back to the system, after something large has gone; where there is such a call."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def tune_malloc() -> bool:
    """Keep buffers up to 32 MiB on the heap instead of mapping each anew; False where the C library has no such knob.

    paho copies a payload several times; with glibc's defaults each copy of 128 KiB or more is mapped and unmapped.
    Threads that have allocated before keep the heap they have.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    mallopt.argtypes, mallopt.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int
    mmap_set = mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
    trim_set = mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)
    arena_set = mallopt(M_ARENA_MAX, NUM_ARENAS)
    return bool(mmap_set and trim_set and arena_set)
