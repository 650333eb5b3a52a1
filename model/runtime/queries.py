"""Reads files of queries: each line is a JSON object with a query and, mostly, the video that answers it."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from model.runtime.errors import InputError
from model.runtime.messages import shorten

_EXAMPLE = '{"query": "a dog runs", "video": "dog.mp4"}'


@dataclass(frozen=True)
class LabelledQuery:
    """A line of a query file.

    Attributes:
        line: the line's number in the file, from 1.
        text: the query as written.
        video: the name of the right video.
        set_name: the field `set`; None where it is missing or not text.
        span: where the answer starts and ends in the video, in seconds; None: not stated.
    """

    line: int
    text: str
    video: str
    set_name: str | None = None
    span: tuple[float, float] | None = None


@dataclass(frozen=True)
class AnyQuery:
    """A line of a file of queries whose answers need not be known.

    Attributes:
        line: the line's number in the file, from 1.
        text: the query as written.
        video: the name of the right video; None: not stated.
    """

    line: int
    text: str
    video: str | None = None


def read_any_queries(file: Path) -> list[AnyQuery]:
    """The queries of a JSON-lines file with the field `query` and, where the answer is known, `video`.

    As `read_queries` for the rest.

    Raises:
        InputError: the file cannot be read, a line is invalid (the message gives its number), or there is no
            query.
    """
    queries = [
        AnyQuery(
            number,
            _text_field(row, "query", where),
            None if row.get("video") is None else _text_field(row, "video", where),
        )
        for number, where, row in _rows(file)
    ]
    if not queries:
        raise InputError(f"{file} holds no query. A row is like {_EXAMPLE}.")
    return queries


def read_queries(file: Path, only_set: str | None = None) -> list[LabelledQuery]:
    """The queries of a JSON-lines file with the fields `query` and `video`, and, where they are known, `set`,
    `start_seconds` and `end_seconds`.

    Blank lines are skipped, and other fields are ignored.

    Args:
        file: text in UTF-8; a byte order mark is allowed.
        only_set: keep only the lines whose field `set` has this value; the others are not checked.

    Raises:
        InputError: the file cannot be read, a line is invalid (the message gives its number), or no query is
            left.
    """
    queries = []
    for number, where, row in _rows(file):
        set_name = row.get("set")
        if only_set is not None and set_name != only_set:
            continue
        text, video = _text_field(row, "query", where), _text_field(row, "video", where)
        named = set_name if isinstance(set_name, str) else None
        queries.append(LabelledQuery(number, text, video, named, _span(row, where)))
    if not queries:
        which = "no query" if only_set is None else f"no query of the set {shorten(only_set)}"
        raise InputError(f"{file} holds {which}. A row is like {_EXAMPLE}.")
    return queries


def _rows(file: Path) -> Iterator[tuple[int, str, Mapping[str, object]]]:
    """The number of each line that is not blank, what to call it in an error message, and its object."""
    try:
        # splitlines() would also split at characters that JSON allows within a string.
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{file} cannot be read as text in UTF-8: {error}. Give a file with one JSON object per line."
        ) from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"{file}, line {number}"
            yield number, where, _parse(line, where)


def _parse(line: str, where: str) -> Mapping[str, object]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON: {error}. Write one JSON object per line.") from None
    if not isinstance(row, dict):
        raise InputError(f'{where} holds {shorten(row)}. Write a JSON object with "query" and "video".')
    return row


def _span(row: Mapping[str, object], where: str) -> tuple[float, float] | None:
    """The fields `start_seconds` and `end_seconds`; None where both are missing or null."""
    names = ("start_seconds", "end_seconds")
    values = [row.get(name) for name in names]
    if values == [None, None]:
        return None
    for name, value in zip(names, values, strict=True):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or value < 0:  # type: ignore[arg-type, operator]
            raise InputError(
                f'{where}: "{name}" is {shorten(value)}. Give the seconds from the start of the video, '
                "for both the start and the end, or leave both out."
            )
    start, end = float(values[0]), float(values[1])  # type: ignore[arg-type]
    if end <= start:
        raise InputError(
            f'{where}: "end_seconds" {end:g} is not after "start_seconds" {start:g}. Correct it.'
        )
    return start, end


def _text_field(row: Mapping[str, object], name: str, where: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        what = f"must be text, not {shorten(value)}" if name in row else "is missing"
        raise InputError(f'{where}: "{name}" {what}. A row is like {_EXAMPLE}.')
    return value
