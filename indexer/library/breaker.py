"""Spares a server that does not answer, and those who would wait for it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from indexer.library.errors import AwayError

#: After so many failures, one after the other, calls are refused at once for a while.
FAILURES = 3
_FIRST_SECONDS = 1.0
_LONGEST_SECONDS = 30.0


class CircuitBreaker:
    """Lets calls to a server through, or refuses them at once after it has failed several times.

    While it refuses, one call is let through from time to time; when such a call succeeds, all are let
    through again. The time between them doubles with each that fails. Many threads may use it.
    """

    def __init__(
        self,
        error: type[AwayError],
        what: str,
        *,
        first_seconds: float = _FIRST_SECONDS,
        longest_seconds: float = _LONGEST_SECONDS,
    ) -> None:
        """Let all calls through at first.

        Args:
            error: what calls raise when the server does not answer.
            what: what cannot be reached then, for messages.
            first_seconds: how long calls are refused at first.
            longest_seconds: how long they are refused at most.
        """
        self._error, self._what = error, what
        self._first_seconds, self._longest_seconds = first_seconds, longest_seconds
        self._lock = threading.Lock()
        self._failures = 0
        self._refuses_until = 0.0

    @contextmanager
    def call(self, seconds: float) -> Iterator[None]:
        """Wraps one call, which takes at most `seconds` and raises an AwayError if it fails.

        Any other error is an answer of the server, which shows that it works.

        Raises:
            AwayError: the call failed, or is refused.
        """
        self._check(seconds)
        try:
            yield
        except AwayError as error:
            error.retry_seconds = self._failed()
            raise
        except BaseException:
            self._succeeded()
            raise
        self._succeeded()

    def _check(self, seconds: float) -> None:
        with self._lock:
            now = time.monotonic()
            wait = self._refuses_until - now
            if wait > 0:
                raise self._error(
                    f"{self._what} cannot be reached; the next attempt is in {wait:.0f} s",
                    retry_seconds=wait,
                )
            if self._failures >= FAILURES:
                # This call tries whether the server is back; all others are refused until it has ended.
                self._refuses_until = now + min(seconds, self._longest_seconds)

    def _failed(self) -> float:
        """Count a failure. → When to try again, in seconds."""
        with self._lock:
            self._failures += 1
            beyond = self._failures - FAILURES
            if beyond < 0:
                return self._first_seconds
            # More doublings than this would be too large for a float.
            wait = min(self._longest_seconds, self._first_seconds * 2.0 ** min(beyond, 32))
            self._refuses_until = time.monotonic() + wait
            return wait

    def _succeeded(self) -> None:
        with self._lock:
            self._failures, self._refuses_until = 0, 0.0
