"""Makes conditions of what users give: checks fields, operators and values, and says what is wrong where.

A day, as the value of a time, is the whole day in UTC: `lte` a day includes it, and `gt` a day excludes it.

Each function gets the JSON pointer of its condition in the request, whose parts errors name, and raises a
QueryError where there is no such field, or where it does not have such an operator or such values.
"""

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta

from indexer.library.annotations import folded_tag
from model.runtime.messages import shorten
from model.runtime.remote.path import media_path
from service.errors import QueryError
from service.search.fields import FIELDS, Field, Kind, Operator
from service.search.filters import Contains, Filter, In, IsNull, Range, Under, Value

#: The longest text to compare with, in characters: as long as a path may be.
_MOST_CHARACTERS = 4096
_IN_WORDS: Mapping[Kind, str] = {
    "text": "text",
    "path": "a path",
    "number": "a number",
    "time": "a time",
    "boolean": "true or false",
}
_EXAMPLES: Mapping[Kind, str] = {
    "text": 'text such as "h264"',
    "path": 'text such as "/media/holiday"',
    "number": "a number such as 60",
    "time": 'a time such as "2024-05-01T12:00:00Z", or a day such as "2024-05-01"',
    "boolean": "true or false",
}


def equals(name: str, value: object, pointer: str) -> Filter:
    """The field `name` has a value; where the value is a day, it is a time on that day."""
    parsed = _chosen(name, _field(name, "equals", pointer), value, f"{pointer}/value")
    if isinstance(parsed, _Day):
        return Range(name, gte=parsed.start, lt=parsed.end)
    return In(name, (parsed,))


def one_of(name: str, values: Sequence[object], pointer: str) -> Filter:
    """The field `name` has one of some values."""
    field = _field(name, "in", pointer)
    parsed = [_chosen(name, field, value, f"{pointer}/values/{i}") for i, value in enumerate(values)]
    # No field of times has this operator.
    return In(name, tuple(value for value in parsed if not isinstance(value, _Day)))


def within(name: str, bounds: Mapping[str, object], pointer: str) -> Filter:
    """The field `name` lies within bounds, by `gte`, `gt`, `lte` and `lt`: None stands for no bound."""
    field = _field(name, "range", pointer)
    given = {side: bound for side, bound in bounds.items() if bound is not None}
    if not given:
        raise QueryError(
            f'The range of {name} has no bound. Give "gte", "gt", "lte" or "lt", {_EXAMPLES[field.kind]}.',
            pointer,
        )
    lower: dict[str, float | datetime] = {}
    for side, bound in given.items():
        parsed = _parsed(name, field, bound, f"{pointer}/{side}")
        if isinstance(parsed, _Day):
            # A day is from its start on, and before the start of the next one.
            side, parsed = _SIDE_OF_DAY[side], parsed.end if side in ("gt", "lte") else parsed.start
        if isinstance(parsed, float | datetime):
            lower[side] = _narrower(side, parsed, lower.get(side))
    return Range(name, **lower)


def under(name: str, folder: object, pointer: str) -> Filter:
    """The path `name` lies in a folder, however deep."""
    field = _field(name, "under", pointer)
    parsed = str(_parsed(name, field, folder, f"{pointer}/folder"))
    if not parsed:
        raise QueryError('The folder is empty. Name one such as "/media/holiday".', f"{pointer}/folder")
    return Under(name, str(media_path(re.sub("/+", "/", parsed))))


def contains(name: str, part: object, pointer: str) -> Filter:
    """The text `name` has a part."""
    field = _field(name, "contains", pointer)
    return Contains(name, _as_compared(field, str(_parsed(name, field, part, f"{pointer}/value"))))


def is_null(name: str, pointer: str) -> Filter:
    """The field `name` has no value."""
    _field(name, "is_null", pointer)
    return IsNull(name)


class _Day:
    """A day, in UTC: from its first instant to the first one after it."""

    def __init__(self, day: date) -> None:
        self.start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        last = day == date.max
        self.end = datetime.max.replace(tzinfo=UTC) if last else self.start + timedelta(days=1)


_SIDE_OF_DAY: Mapping[str, str] = {"gte": "gte", "gt": "gte", "lte": "lt", "lt": "lt"}


def _narrower(side: str, bound: float | datetime, other: float | datetime | None) -> float | datetime:
    """The one of two bounds of a side that leaves less."""
    if other is None:
        return bound
    # Both are of one field, and so of one type.
    is_greater = bound > other  # type: ignore[operator]
    return bound if is_greater == (side in ("gte", "gt")) else other


def _field(name: str, operator: Operator, pointer: str) -> Field:
    field = FIELDS.get(name)
    if field is None:
        raise QueryError(
            f"{shorten(name)} is not a field to filter by. Choose one of {', '.join(FIELDS)}.",
            f"{pointer}/field",
        )
    if operator not in field.operators:
        raise QueryError(
            f'{name} is {_IN_WORDS[field.kind]} and cannot be compared by "{operator}". Use one of '
            f"{', '.join(field.operators)}.",
            f"{pointer}/op",
        )
    return field


def _chosen(name: str, field: Field, value: object, pointer: str) -> Value | _Day:
    parsed = _parsed(name, field, value, pointer)
    if field.choices and parsed not in field.choices:
        raise QueryError(f"{name} is one of {', '.join(field.choices)}, never {shorten(value)}.", pointer)
    return _as_compared(field, parsed) if isinstance(parsed, str) else parsed


def _as_compared(field: Field, text: str) -> str:
    return folded_tag(text) if field.folds else text


def _parsed(name: str, field: Field, value: object, pointer: str) -> Value | _Day:
    """A value of a request as one to compare the field with."""
    if isinstance(value, str) and len(value) > _MOST_CHARACTERS:
        raise QueryError(
            f"The text to compare {name} with has {len(value):,} characters; at most {_MOST_CHARACTERS:,} "
            "are allowed. Shorten it.",
            pointer,
        )
    parsed = _PARSERS[field.kind](value)
    if parsed is None:
        raise QueryError(
            f"{name} is {_IN_WORDS[field.kind]}: compare it with {_EXAMPLES[field.kind]}, "
            f"not {shorten(value)}.",
            pointer,
        )
    return parsed


def _text(value: object) -> str | None:
    """A text; halves of surrogate pairs, which nothing stored holds, make it none."""
    if not isinstance(value, str) or value.encode("utf-8", "replace").decode() != value:
        return None
    return value


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _time(value: object) -> "datetime | _Day | None":
    """A day, or a time, which is in UTC unless it says otherwise."""
    if not isinstance(value, str):
        return None
    try:
        return _Day(date.fromisoformat(value))
    except ValueError:
        pass
    try:
        time = datetime.fromisoformat(value)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _boolean(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


_PARSERS = {"text": _text, "path": _text, "number": _number, "time": _time, "boolean": _boolean}
