"""Times the stages of a search."""

import time
from collections import defaultdict

from model.runtime.tracing import record


class Stopwatch:
    """Measures milliseconds per stage; several laps of a stage add up. Each lap is a span of its own, too."""

    def __init__(self) -> None:
        self.milliseconds: defaultdict[str, float] = defaultdict(float)
        self._started = self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Add the time since the last lap to `stage`."""
        now = time.perf_counter()
        record(stage, self._last, now)
        self.milliseconds[stage] += (now - self._last) * 1000
        self._last = now

    def total(self) -> float:
        """Milliseconds since the start."""
        return (time.perf_counter() - self._started) * 1000
