"""How often a key, a user or an address may ask."""

import math
import time
from collections.abc import Sequence

from limits import RateLimitItem, parse_many
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter

# Counters that have run out are dropped when there are more than the one, the oldest beyond the other.
_FEW = 10_000
_MOST = 200_000


class RateLimit:
    """One or several limits, such as `10/minute; 100/hour`. Its methods belong to one event loop."""

    def __init__(self, text: str) -> None:
        """`text` as the setting has it; empty: no limit."""
        self._items: Sequence[RateLimitItem] = parse_many(text) if text else ()
        self._limiter = FixedWindowRateLimiter(_Counters())

    def count(self, who: str) -> int | None:
        """Count a request. → Seconds until the next is allowed, if this one is not; None: it is."""
        return self._wait([item for item in self._items if not self._limiter.hit(item, who)], who)

    def wait(self, who: str) -> int | None:
        """As `count`, for the next request, without counting it."""
        return self._wait([item for item in self._items if not self._limiter.test(item, who)], who)

    def _wait(self, exceeded: Sequence[RateLimitItem], who: str) -> int | None:
        if not exceeded:
            return None
        resets = max(self._limiter.get_window_stats(item, who).reset_time for item in exceeded)
        return max(1, math.ceil(resets - time.time()))


class _Counters(Storage):
    """Counters in memory. That of the library starts a thread for every few requests to drop old ones."""

    def __init__(self) -> None:
        super().__init__()
        self._counts: dict[str, tuple[int, float]] = {}
        self._drop_above = _FEW

    @property
    def base_exceptions(self) -> type[Exception]:
        return ValueError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        count, expires_at = self._counts.get(key, (0, 0.0))
        now = time.time()
        if expires_at <= now:
            # At the end: the counters are in the order in which they began.
            self._counts.pop(key, None)
            count, expires_at = 0, now + expiry
        self._counts[key] = (count + amount, expires_at)
        if len(self._counts) > self._drop_above:
            self._drop(now)
        return count + amount

    def get(self, key: str) -> int:
        count, expires_at = self._counts.get(key, (0, 0.0))
        return count if expires_at > time.time() else 0

    def get_expiry(self, key: str) -> float:
        return self._counts.get(key, (0, time.time()))[1]

    def check(self) -> bool:
        return True

    def reset(self) -> int | None:
        count = len(self._counts)
        self._counts.clear()
        return count

    def clear(self, key: str) -> None:
        self._counts.pop(key, None)

    def _drop(self, now: float) -> None:
        kept = [(key, counter) for key, counter in self._counts.items() if counter[1] > now]
        self._counts = dict(kept[-_MOST:])
        # Twice as many must come before the next look at all of them.
        self._drop_above = max(_FEW, 2 * len(self._counts))
