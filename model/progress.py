"""How far a long measurement is, and how long it will still take."""

from __future__ import annotations

import time
from collections.abc import Callable

Report = Callable[[str], None]


def silent(words: str) -> None:
    """Report nothing."""


def duration(seconds: float) -> str:
    """Words for a time that is left."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


class Progress:
    """Reports a count now and then, with the time left; what is done within moments says nothing."""

    def __init__(self, what: str, total: int, report: Report, every_seconds: float = 10.0) -> None:
        """Start the clock; `what` names the things counted, for example `pairs`."""
        self._what, self._total, self._report, self._every = what, total, report, every_seconds
        self._done = 0
        self._began = self._said = time.monotonic()

    def step(self, count: int = 1) -> None:
        """`count` more are done."""
        self._done += count
        now = time.monotonic()
        if now - self._said < self._every or self._done >= self._total:
            return
        self._said = now
        left = (now - self._began) / self._done * (self._total - self._done)
        self._report(f"{self._done:,}/{self._total:,} {self._what} · {duration(left)} left")
