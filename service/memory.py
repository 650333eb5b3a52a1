"""Keeps the memory of a server that runs for months flat."""

import ctypes
import os

_ARENA_MAX = -8  # glibc's M_ARENA_MAX
_ARENAS = 2


def share_arenas() -> None:
    """Let all threads of this process share two of glibc's heaps ("arenas"). Call it before they start.

    By default nearly each thread has its own, and each keeps what it once needed: memory then grows with
    every thread that Lance's pool starts when many reads come at once. `MALLOC_ARENA_MAX` overrides it;
    other C libraries have no arenas.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and "MALLOC_ARENA_MAX" not in os.environ:
        mallopt(_ARENA_MAX, _ARENAS)
