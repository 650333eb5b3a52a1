"""Keeps the memory and the threads of a server that runs for months flat."""

import ctypes
import os
from pathlib import Path

import pyarrow as pa
from threadpoolctl import ThreadpoolController

_ARENA_MAX = -8  # glibc's M_ARENA_MAX
_ARENAS = 2
#: Parts of a table that Lance reads at once for one request, each in a thread of a pool that does not shrink
#: under steady load. Lance's own default is 8.
_LANCE_THREADS = 4
_GROUP = Path("/sys/fs/cgroup")


def share_heaps() -> None:
    """Let all threads of this process share two heaps. Call it before they start.

    By default glibc ("arenas") and Arrow give nearly each thread its own, and each keeps what it once needed:
    memory then grows with every thread that Lance's pool starts when many reads come at once.
    `MALLOC_ARENA_MAX` and `ARROW_DEFAULT_MEMORY_POOL` override it; other C libraries have no arenas.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and "MALLOC_ARENA_MAX" not in os.environ:
        mallopt(_ARENA_MAX, _ARENAS)
    if "ARROW_DEFAULT_MEMORY_POOL" not in os.environ:
        pa.set_memory_pool(pa.system_memory_pool())


def limit_blas_threads() -> None:
    """Let each product of matrices run in the thread of its search; `OPENBLAS_NUM_THREADS` overrides it.

    Those of a search take less than a tenth of a millisecond. Threads that wait for them keep the cores from
    other searches: with two, eight clients got a quarter fewer answers.
    """
    if "OPENBLAS_NUM_THREADS" not in os.environ:
        ThreadpoolController().limit(limits=1, user_api="blas")
        # Libraries that are loaded later read it, unless they are built on OpenMP.
        os.environ["OPENBLAS_NUM_THREADS"] = "1"


def limit_lance_threads() -> None:
    """Let Lance start few threads. Call it before a table is opened; `LANCE_IO_THREADS` overrides it."""
    os.environ.setdefault("LANCE_IO_THREADS", str(_LANCE_THREADS))


def memory_limit() -> int | None:
    """Bytes of memory that the control group allows; None: no limit, or not known."""
    for path in (_GROUP / "memory.max", _GROUP / "memory" / "memory.limit_in_bytes"):
        try:
            text = path.read_text(encoding="ascii").strip()
        except OSError:
            continue
        return int(text) if text.isdecimal() else None
    return None


def available_memory() -> int | None:
    """Bytes of memory that programs can still take, here and in the control group; None: not known."""
    free = _field(Path("/proc/meminfo"), "MemAvailable:", 1024)
    limit = memory_limit()
    # Of a file that is kept in memory nothing is lost when its memory is taken.
    used = [_field(_GROUP / "memory.stat", name, 1) for name in ("anon", "shmem", "kernel")]
    if free is None or limit is None or None in used:
        return free
    return min(free, limit - sum(each for each in used if each is not None))


def has_room_for_another() -> bool:
    """Whether memory suffices for another process like this one, while each loads a new snapshot."""
    free = available_memory()
    own = _field(Path("/proc/self/status"), "VmRSS:", 1024)
    return free is None or own is None or free > 2 * own


def _field(file: Path, name: str, unit: int) -> int | None:
    """A number after its name in a file of the kernel, in bytes; None: it is not there."""
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = (line.split() for line in lines)
    return next((int(words[1]) * unit for words in found if words[:1] == [name]), None)
