"""Which requests are sent again, and when: exponential backoff with jitter, and what `Retry-After` says."""

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from service.client.errors import (
    ClientError,
    NoAnswerError,
    TimedOutError,
    TooManyRequestsError,
    UnavailableError,
)

# Kinds of 503 that no waiting ends.
_LASTING = frozenset({"damaged", "no-encoders"})


@dataclass(frozen=True)
class Retries:
    """How often a request is sent again, and how long at most to wait before.

    The n-th wait is random between 0 and `first_seconds` · 2ⁿ⁻¹ (at most `longest_seconds`), so that clients
    that were refused together do not come back together; it follows the seconds that the service asks for. A
    service that asks for more than `longest_seconds` is not asked again.
    """

    count: int = 3
    first_seconds: float = 0.5
    longest_seconds: float = 30.0


class Attempts:
    """The attempts of one request."""

    def __init__(self, retries: Retries, *, is_repeatable: bool) -> None:
        self._retries = retries
        self._is_repeatable = is_repeatable
        self._num_failed = 0

    def wait_after(self, error: ClientError) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            ClientError: the error itself, if there is none.
        """
        asked = getattr(error, "retry_after_seconds", None) or 0.0
        if (
            self._num_failed >= self._retries.count
            or not _may_repeat(error, self._is_repeatable)
            or asked > self._retries.longest_seconds
        ):
            raise error
        longest = min(self._retries.first_seconds * 2.0**self._num_failed, self._retries.longest_seconds)
        self._num_failed += 1
        return asked + random.uniform(0.0, longest)  # noqa: S311 - no secret


def _may_repeat(error: ClientError, is_repeatable: bool) -> bool:
    match error:
        case TimedOutError(sent=True):
            return False  # the service is still at it: a second request would only add to its work
        case NoAnswerError():
            return is_repeatable or not error.sent
        case TooManyRequestsError():
            return True
        case UnavailableError():
            return is_repeatable and error.kind not in _LASTING
    return False


def retry_after(response: httpx.Response) -> float | None:
    """What the header `Retry-After` says (RFC 9110, section 10.2.3), in seconds; None: nothing to go by."""
    said = response.headers.get("retry-after", "").strip()
    if said.isdecimal():
        return float(said)
    try:
        at = parsedate_to_datetime(said)
    except ValueError:
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
