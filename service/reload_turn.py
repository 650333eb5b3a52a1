"""When one of several services of a library loads a new snapshot: not all at once."""

from secrets import SystemRandom

_random = SystemRandom()


class ReloadTurn:
    """Draws at which moment of a time span a new snapshot is loaded.

    Loading takes memory and CPU time for two snapshots. Services that look at the same library, each by
    itself, so come to it one after the other.
    """

    def __init__(self, spread_seconds: float) -> None:
        self._spread_seconds = spread_seconds
        self._comes_at: float | None = None

    def has_come(self, now: float) -> bool:
        """Whether a new snapshot may be loaded; `now` in seconds of `time.monotonic()`.

        The first call draws the moment. It stays the same until `end`, whatever is published meanwhile, so
        that a library that changes all the time is reloaded too.
        """
        if self._comes_at is None:
            self._comes_at = now + _random.uniform(0.0, self._spread_seconds)
        return now >= self._comes_at

    def end(self) -> None:
        """A snapshot was loaded or refused: the next one has a moment of its own."""
        self._comes_at = None
