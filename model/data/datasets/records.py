"""Captioned videos, and the entries of annotation files, whose mistakes are named by line and field."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.runtime.errors import InputError

#: start and end in seconds
SpanSeconds = tuple[float, float]


@dataclass(frozen=True)
class Annotated:
    """The captions of one video, and the part of the video that they describe; None: all of it.

    Where `answers` are given, one for each, the captions are questions.
    """

    video_id: str
    captions: tuple[str, ...]
    span_seconds: SpanSeconds | None = None
    answers: tuple[str, ...] = ()


@dataclass(frozen=True)
class CaptionedVideo:
    """A video file, or a photo as a video of one frame, with its captions, or its questions and answers."""

    video_id: str
    path: Path
    captions: tuple[str, ...]
    span_seconds: SpanSeconds | None = None
    answers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Split:
    """One part of a data set, such as "msrvtt 1ka test"."""

    name: str
    items: tuple[CaptionedVideo, ...]

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True)
class Entry:
    """One entry of an annotation file; `where` is its line or its place in the file."""

    file: Path
    where: str
    values: Mapping[str, Any]

    def fail(self, message: str) -> InputError:
        """An error that names the file and the entry."""
        return InputError(f"{self.file}, {self.where}: {message}")

    def _get(self, field: str) -> Any:
        if self.values.get(field) is None:
            fields = ", ".join(str(key) for key in self.values)
            raise self.fail(f"no field {field!r}; there are {fields or 'none'}")
        return self.values[field]

    def text(self, field: str) -> str:
        """A text that is not blank, with its ends stripped.

        Raises:
            InputError: the field is missing or has another type; all methods here raise it.
        """
        value = self._get(field)
        if not isinstance(value, str) or not value.strip():
            raise self.fail(f"{field} is {_short(value)}: it must be a text")
        return value.strip()

    def name(self, field: str) -> str:
        """A name; some files write it as a number."""
        value = self._get(field)
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else self.text(field)

    def number(self, field: str) -> float:
        """A finite number that is not negative."""
        return self._number(self._get(field), field)

    def _number(self, value: Any, field: str) -> float:
        good = isinstance(value, int | float) and not isinstance(value, bool)
        if not good or not 0 <= value < float("inf"):
            raise self.fail(f"{field} is {_short(value)}: it must be a number, 0 or more")
        return float(value)

    def items(self, field: str) -> list[Any]:
        """A list that is not empty."""
        value = self._get(field)
        if not isinstance(value, list) or not value:
            raise self.fail(f"{field} is {_short(value)}: it must be a list that is not empty")
        return value

    def texts(self, field: str) -> tuple[str, ...]:
        """A list of texts, or one text. Blank texts of a list are left out."""
        value = self._get(field)
        if isinstance(value, str):
            return (self.text(field),)
        texts = self.items(field)
        if not all(isinstance(text, str) for text in texts):
            raise self.fail(f"{field} must hold texts only")
        stripped = tuple(text.strip() for text in texts if text.strip())
        if not stripped:
            raise self.fail(f"{field} holds blank texts only")
        return stripped

    def span(self, field: str, value: Any = None) -> SpanSeconds:
        """Start and end in seconds, from the field itself or from `value`, one of its items."""
        value = self._get(field) if value is None else value
        if not isinstance(value, list) or len(value) != 2:
            raise self.fail(f"{field} holds {_short(value)}: it must be [start, end] in seconds")
        start, end = (self._number(part, field) for part in value)
        if start > end:
            raise self.fail(f"{field} holds {_short(value)}: the start must not be after the end")
        return start, end


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Raises:
        InputError: the file is missing or is not text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"no annotation file {path}: download it from the data set's own page") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text: {error}") from error


def read_annotation_json(path: Path) -> Any:
    """The value that a JSON file holds.

    Raises:
        InputError: the file is missing or is not JSON; the message names the line.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}: is not JSON ({error.msg})") from error


def entries_of(path: Path, values: Any, where: str = "entry") -> Iterator[Entry]:
    """The objects of a JSON list.

    Raises:
        InputError: it is not a list, or holds something else.
    """
    if not isinstance(values, list):
        raise InputError(f"{path}: {where} must be a list of objects, not {type(values).__name__}")
    for number, value in enumerate(values):
        if not isinstance(value, dict):
            raise InputError(f"{path}, {where} {number}: must be an object, not {_short(value)}")
        yield Entry(path, f"{where} {number}", value)


def json_lines(path: Path) -> Iterator[Entry]:
    """The objects of a file that has one on each line; blank lines are left out.

    Raises:
        InputError: a line holds something else.
    """
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {number}: is not JSON ({error.msg})") from error
        if not isinstance(value, dict):
            raise InputError(f"{path}, line {number}: must be an object, not {_short(value)}")
        yield Entry(path, f"line {number}", value)
