"""Lets few threads compute at once, about as many as there are cores, in the order in which they ask.

Threads that all compute at once interrupt each other every few milliseconds: each switch costs time, and what
a thread has in a core's caches is lost to the next. Here a thread goes on until it waits for something, such
as a call that others share, or a disk: with `elsewhere` another one computes meanwhile.
"""

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

# So many threads for each core compute at once: about half of them wait for Python's interpreter lock.
_THREADS_A_CORE = 2
# When no thread has given up a core for so long, the next one computes without: what holds the cores may wait
# for something that this thread has, or for a disk.
_PATIENCE_SECONDS = 0.1


def available_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Cores:
    """A number of cores that threads take turns on. Every method may be called from any thread."""

    def __init__(self, count: int | None = None) -> None:
        """`count` threads compute at once; None: two for each core that this process may use.

        Raises:
            ValueError: `count` is below 1.
        """
        if count is not None and count < 1:
            raise ValueError(f"count is {count}: it must be at least 1")
        self._lock = threading.Lock()
        # Below 0 where threads lost their patience.
        self._free = _THREADS_A_CORE * available_cores() if count is None else count
        self._num_given = 0
        #: A lock for each thread that waits; whoever gives it a core releases it.
        self._waiting: deque[threading.Lock] = deque()

    @property
    def num_waiting(self) -> int:
        """How many threads wait for a core."""
        return len(self._waiting)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Wait for a core, and hold it in the context, but for what is in `elsewhere`.

        Raises:
            RuntimeError: this thread holds one already.
        """
        if _this_thread.cores is not None:
            raise RuntimeError("this thread holds a core already: it would wait for itself")
        self._take()
        _this_thread.cores = self
        try:
            yield
        finally:
            _this_thread.cores = None
            self._give()

    def _take(self) -> None:
        with self._lock:
            if self._free > 0:
                self._free -= 1
                return
            granted = threading.Lock()
            granted.acquire()
            self._waiting.append(granted)
            num_given = self._num_given
        while not granted.acquire(timeout=_PATIENCE_SECONDS):
            with self._lock:
                if self._num_given == num_given and granted in self._waiting:
                    self._waiting.remove(granted)
                    self._free -= 1
                    return
                num_given = self._num_given

    def _give(self) -> None:
        with self._lock:
            self._num_given += 1
            if self._waiting and self._free >= 0:
                self._waiting.popleft().release()
            else:
                self._free += 1


class _ThisThread(threading.local):
    """What the current thread holds a core of; None: it holds none."""

    cores: Cores | None = None


_this_thread = _ThisThread()


@contextmanager
def elsewhere() -> Iterator[None]:
    """Give up the core that this thread holds, if it holds one, while it waits for something else."""
    cores = _this_thread.cores
    if cores is None:
        yield
        return
    _this_thread.cores = None
    cores._give()
    try:
        yield
    finally:
        cores._take()
        _this_thread.cores = cores
