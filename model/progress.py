"""Reports how far a long task is, and how long it will still take."""

from __future__ import annotations

import time
from collections.abc import Callable

#: takes one line of progress
Report = Callable[[str], None]


def silent(line: str) -> None:
    """Report nothing."""


def duration(seconds: float) -> str:
    """A duration as people write it, such as `12 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


class Progress:
    """Reports a count every few seconds, with the time left; a task that ends sooner reports nothing."""

    def __init__(self, unit: str, total: int, report: Report, every_seconds: float = 10.0) -> None:
        """Start the clock; `unit` names the things counted, for example `pairs`."""
        self._unit, self._total, self._report, self._every = unit, total, report, every_seconds
        self._done = 0
        self._began = self._reported = time.monotonic()

    def step(self, count: int = 1) -> None:
        """Count `count` more as done."""
        self._done += count
        now = time.monotonic()
        if now - self._reported < self._every or self._done >= self._total:
            return
        self._reported = now
        left = (now - self._began) / self._done * (self._total - self._done)
        self._report(f"{self._done:,}/{self._total:,} {self._unit} · {duration(left)} left")
