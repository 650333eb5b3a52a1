"""Tells a place that cannot be reached from a file that is damaged.

An error of the file system (a share that is gone, a disk that fails, a permission that is missing) says
nothing about the content of a file. It is never a verdict: what the library has of the file stays.

This module imports nothing but the standard library, so that a decoding process starts fast.
"""

import os
import stat as modes
import threading
from collections.abc import Callable
from pathlib import Path

#: How long a disk or a share may take to answer before it counts as not reachable.
ANSWER_SECONDS = 10.0


def place_error(error: Exception) -> str:
    """Why the file system does not give a file or a folder, in a few words."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def unreached(path: Path, device: int | None) -> str | None:
    """Why a file that the scan has found cannot be reached now; None when it can.

    Args:
        path: the file.
        device: the device (`st_dev`) that it was on when it was found; None: any.
    """
    try:
        stat = path.stat()
    except (OSError, ValueError) as error:
        return f"cannot be reached: {place_error(error)}"
    return displaced(stat, device)


def displaced(stat: os.stat_result, device: int | None) -> str | None:
    """Why what is at a path now is not the file that was found there; None when it is."""
    if device is not None and stat.st_dev != device:
        return "cannot be reached: another disk is mounted there now"
    if not modes.S_ISREG(stat.st_mode):
        return "cannot be reached: another thing than a regular file is there now"
    return None


def unreached_after_failure(path: Path, device: int | None, seconds: float = ANSWER_SECONDS) -> str | None:
    """As `unreached`, for a file whose decoder hung or crashed: reads from it, and does not wait for ever.

    Args:
        path: the file.
        device: see `unreached`.
        seconds: a file that gives no data for this long is not reachable.
    """

    def look() -> str | None:
        reason = unreached(path, device)
        if reason is None:
            try:
                with path.open("rb", buffering=0) as file:
                    file.read(1)
                    file.seek(max(0, path.stat().st_size - 1))
                    file.read(1)
            except OSError as error:
                return f"cannot be read: {place_error(error)}"
        return reason

    return _within(seconds, look, "cannot be reached: its disk or share does not answer")


def no_longer_exists(path: Path) -> bool:
    """Whether there is no file at a path. A file that cannot be reached now may still exist."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False


def _within(seconds: float, work: Callable[[], str | None], late: str) -> str | None:
    """The result of `work`, or `late`. A call that hangs in the kernel cannot be ended, only left behind."""
    results: list[str | None] = []
    thread = threading.Thread(target=lambda: results.append(work()), name="place", daemon=True)
    thread.start()
    thread.join(seconds)
    return results[0] if results else late
