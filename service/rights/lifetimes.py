"""When a key expires, as people write it: `30d`, `12h`, or a date."""

import re
from datetime import datetime, timedelta

from model.runtime.errors import InputError
from model.runtime.messages import shorten

_SPAN = re.compile(r"([1-9][0-9]{0,5})([hdw])")
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def expiry_of(text: str, now: datetime) -> datetime:
    """The time at which a key expires.

    Args:
        text: hours, days or weeks (`12h`, `30d`, `8w`), a date (`2027-01-31`: the end of that day) or a
            time (`2027-01-31T18:00`), in the time zone of `now` unless it names one.
        now: the time, with its zone.

    Raises:
        InputError: the text is none of these, or the time is past or beyond the year 9999.
    """
    span = _SPAN.fullmatch(text)
    try:
        if span is not None:
            return now + int(span[1]) * _UNITS[span[2]]
        moment = datetime.fromisoformat(text)
        if "T" not in text and " " not in text:
            moment += timedelta(days=1)
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=now.tzinfo)
        is_past = moment <= now
    except (ValueError, OverflowError):
        raise InputError(
            f"expires {shorten(text)} is no time: write a span such as 12h, 30d or 8w, or a date such as "
            f"{now.year + 1}-01-31",
            field="expires",
        ) from None
    if is_past:
        raise InputError(f"expires {text} is past: choose a later time", field="expires")
    return moment
