"""When a video was taken, as far as its file says: in tags, in its name, or by its time of modification.

What is certain comes first: a tag with a zone; then a tag in UTC; then a tag without a zone, the file's name
and the file's time. The `creation_time` of MP4 and MOV is in UTC by the standard, and taken so, though some
cameras write their local time there. A local time whose zone is not known counts as if it were in UTC: the
day and the hour are then those that its owner remembers.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Literal, get_args

#: Where a time is from: a tag that says its zone, one in UTC, one in local time; the file's name or time.
CapturedSource = Literal["tag_with_zone", "tag_utc", "tag_local", "file_name", "file_time"]
CAPTURED_SOURCES: tuple[CapturedSource, ...] = get_args(CapturedSource)
#: Those that a container knows.
TAG_SOURCES: tuple[CapturedSource, ...] = ("tag_with_zone", "tag_utc", "tag_local")

#: The zones that there are reach so far from UTC, in minutes.
MOST_OFFSET_MINUTES = 14 * 60
#: Tags by which a recorder says when it recorded, the most certain first, in lower case.
_TAGS = (
    "com.apple.quicktime.creationdate",
    "date_recorded",
    "datetimeoriginal",
    "creation_time",
    "modification_date",
)
#: As these, but only with a zone: else it is when a film was published.
_PUBLISHED = "date"
#: Of these the writing program knows the clock of a computer, so they are not older than the formats.
_BY_COMPUTER = ("creation_time", "modification_date")
#: Before, there was no film.
_FIRST_FILM = datetime(1888, 1, 1, tzinfo=UTC)
_FIRST_CONTAINER = datetime(1990, 1, 1, tzinfo=UTC)
#: Where clocks begin that nobody has set.
_EPOCHS = (datetime(1904, 1, 1, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC))
_DAY = timedelta(days=1)

_TIME = re.compile(
    r"(\d{4})[-:/](\d{2})[-:/](\d{2})"
    r"(?:[T ](\d{2}):(\d{2})(?::(\d{2})(?:[.,]\d{1,9})?)? ?(Z|[+-]\d{2}:?\d{2})?)?",
    re.ASCII,
)
_YEAR, _MONTH, _DAY_OF_MONTH = r"(19[7-9]\d|20\d\d)", r"(0[1-9]|1[0-2])", r"(0[1-9]|[12]\d|3[01])"
_HOUR, _SIXTY = r"([01]\d|2[0-3])", r"([0-5]\d)"
_NAMES = (
    # 20240131_154502, VID_20240131_154502, PXL_20240131_154502123, DJI_20240131154502_0001
    re.compile(
        rf"(?<!\d){_YEAR}{_MONTH}{_DAY_OF_MONTH}[-_T ]?{_HOUR}{_SIXTY}{_SIXTY}(?:\d{{3}})?(?!\d)", re.ASCII
    ),
    # 2024-01-31 15-45-02, 2024-01-31T15:45:02, 2024-01-31 at 15.45.02, 2024-01-31 at 3.45.02 PM
    re.compile(
        rf"(?<!\d){_YEAR}-{_MONTH}-{_DAY_OF_MONTH}(?:[-_T. ]| at )"
        rf"(\d|[01]\d|2[0-3])[-_.:]{_SIXTY}[-_.:]{_SIXTY}(?!\d)(?:[ \u00a0\u202f]([AP]M))?",
        re.ASCII,
    ),
    # IMG-20240131-WA0001, as WhatsApp names what it receives: the day alone
    re.compile(rf"(?:IMG|VID)-{_YEAR}{_MONTH}{_DAY_OF_MONTH}-WA\d{{4}}(?!\d)", re.ASCII),
)


@dataclass(frozen=True)
class Captured:
    """When a video was taken.

    Attributes:
        seconds: since 1970-01-01 in UTC.
        offset_minutes: how far the local time was ahead of UTC; None: that is not known.
        source: what says so. Of "tag_local" and "file_name" the zone is not known either: `seconds` is their
            local time as if it were in UTC.

    Raises:
        ValueError: the time or the zone cannot be.
    """

    seconds: int
    offset_minutes: int | None
    source: CapturedSource

    def __post_init__(self) -> None:
        if not _FIRST_FILM.timestamp() <= self.seconds < datetime.max.replace(tzinfo=UTC).timestamp() - 86400:
            raise ValueError(f"a video taken {self.seconds} s after 1970")
        if self.offset_minutes is not None and abs(self.offset_minutes) > MOST_OFFSET_MINUTES:
            raise ValueError(f"a zone {self.offset_minutes} minutes from UTC")


def captured_in_tags(tags: Mapping[str, str], now: datetime) -> Captured | None:
    """What the tags of a container say; None where they say nothing that can be.

    Args:
        tags: the tags, by their names in lower case.
        now: a later time cannot be, with a day for clocks and zones.
    """
    found = []
    for place, name in enumerate((*_TAGS, _PUBLISHED)):
        time, source = _parsed(tags.get(name, ""))
        if time is None or (name == _PUBLISHED and source != "tag_with_zone"):
            continue
        if name in _BY_COMPUTER and time < _FIRST_CONTAINER:
            continue
        captured = _plausible(time, source, now)
        if captured is not None:
            found.append((CAPTURED_SOURCES.index(source), place, captured))
    return min(found, key=lambda each: each[:2])[2] if found else None


def captured_in_name(name: str, now: datetime) -> Captured | None:
    """What the name of a file says, where it has a date and a time as cameras and phones write them."""
    for pattern in _NAMES:
        match = pattern.search(name)
        if match is None:
            continue
        year, month, day, *clock = match.groups()
        hour, minute, second, *half = clock or ("0", "0", "0")
        hours = int(hour)
        if half and half[0]:
            if not 1 <= hours <= 12:
                continue
            hours = hours % 12 + 12 * (half[0] == "PM")
        try:
            time = datetime(int(year), int(month), int(day), hours, int(minute), int(second), tzinfo=UTC)
        except ValueError:  # such as the 30th of February
            continue
        if captured := _plausible(time, "file_name", now):
            return captured
    return None


def captured_in_file_time(seconds: float, now: datetime) -> Captured | None:
    """What a file's time of modification says, in seconds since 1970 in UTC."""
    try:
        time = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return None if time < _FIRST_CONTAINER else _plausible(time, "file_time", now)


def _parsed(text: str) -> tuple[datetime | None, CapturedSource]:
    """A time, in its zone or else in UTC, and what is known of its zone."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        return None, "tag_local"
    year, month, day, hour, minute, second, zone = match.groups()
    source: CapturedSource = "tag_local" if zone is None else "tag_utc" if zone == "Z" else "tag_with_zone"
    offset = 0
    if zone not in (None, "Z"):
        offset = (60 * int(zone[1:3]) + int(zone[-2:])) * (-1 if zone[0] == "-" else 1)
    try:
        return datetime(
            *(int(year), int(month), int(day)),
            *(int(hour or 0), int(minute or 0), int(second or 0)),
            tzinfo=timezone(timedelta(minutes=offset)),
        ), source
    except ValueError:
        return None, source


def _plausible(time: datetime, source: CapturedSource, now: datetime) -> Captured | None:
    """The time, unless it is where unset clocks begin, before the first film, or in the future."""
    if any(epoch - _DAY <= time < epoch + 2 * _DAY for epoch in _EPOCHS) or time > now + _DAY:
        return None
    offset = time.utcoffset() or timedelta()
    minutes = round(offset.total_seconds() / 60) if source == "tag_with_zone" else None
    try:
        return Captured(int(time.timestamp()), minutes, source)
    except ValueError:
        return None
