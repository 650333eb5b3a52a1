"""When a key expires, as people write it."""

from datetime import datetime, timedelta, timezone

import pytest

from model.runtime.errors import InputError
from service.rights.lifetimes import expiry_of

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=timezone(timedelta(hours=2)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12h", "2026-03-02T00:00+02:00"),
        ("30d", "2026-03-31T12:00+02:00"),
        ("2w", "2026-03-15T12:00+02:00"),
        ("2026-03-01", "2026-03-02T00:00+02:00"),
        ("2026-03-01T18:00", "2026-03-01T18:00+02:00"),
        ("2026-03-01T18:00Z", "2026-03-01T18:00+00:00"),
    ],
)
def test_spans_and_dates(text: str, expected: str) -> None:
    assert expiry_of(text, NOW) == datetime.fromisoformat(expected)


@pytest.mark.parametrize(
    "text", ["", "0d", "30", "d", "-1d", "30 d", "soon", "2026-13-01", "999999w", "9999-12-31"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is no time: write a span such as 12h, 30d or 8w, or a date"):
        expiry_of(text, NOW)


@pytest.mark.parametrize("text", ["2026-02-28", "2026-03-01T11:59", "2026-03-01T10:00Z"])
def test_a_time_that_is_past_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"is past: choose a later time"):
        expiry_of(text, NOW)
