"""Threads that all end when one of them fails, and bounded queues between them."""

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_POLL_SECONDS = 0.1


class AbortedError(Exception):
    """Another thread failed, so this one ends without an error of its own."""


class Abort:
    """Remembers the first failure of a group of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._set = threading.Event()
        self.error: BaseException | None = None

    def fail(self, error: BaseException) -> None:
        """End all threads because of `error`; the first error is kept."""
        with self._lock:
            self.error = self.error or error
            self._set.set()

    @property
    def failed(self) -> bool:
        """Whether a thread failed."""
        return self._set.is_set()


class Channel(Generic[T]):
    """A bounded queue; `put` and `get` raise AbortedError once a thread of the group has failed."""

    def __init__(self, size: int, abort: Abort) -> None:
        self._queue: queue.Queue[T] = queue.Queue(size)
        self._abort = abort

    def put(self, item: T) -> None:
        """Add an item, waiting for room."""
        while True:
            if self._abort.failed:
                raise AbortedError
            try:
                return self._queue.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue

    def get(self) -> T:
        """Take the next item, waiting for one."""
        while True:
            if self._abort.failed:
                raise AbortedError
            try:
                return self._queue.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue

    def get_if_any(self) -> T | None:
        """Take the next item, or None when there is none now."""
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            return None


def guarded(work: Callable[[], None], abort: Abort) -> None:
    """Do a thread's work; if it fails, end all threads of the group."""
    try:
        work()
    except AbortedError:
        pass
    except BaseException as error:
        abort.fail(error)


def join(thread: threading.Thread, abort: Abort) -> None:
    """Wait for a thread. A KeyboardInterrupt ends all threads of the group."""
    while thread.is_alive():
        try:
            thread.join()
        except KeyboardInterrupt as error:
            abort.fail(error)
