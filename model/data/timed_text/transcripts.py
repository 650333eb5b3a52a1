"""Timed text of many videos in one file: TVR's subtitles and HowTo100M's transcripts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from model.data.datasets.records import json_lines
from model.runtime.errors import InputError
from model.runtime.timed_text import Lines, TimedText

_BLOCK_CHARACTERS = 1 << 20
# No word or escape of JSON is longer: an error before it has another cause than the end of a block.
_LONGEST_WORD = 16
_SPACE = " \t\r\n"


def read_tvr_subtitles(path: Path) -> dict[str, TimedText]:
    """TVR's subtitles, JSON lines: {vid_name, sub: [{text, start, end}, …]}.

    Raises:
        InputError: the file is missing or malformed, or names a video twice.
    """
    found: dict[str, TimedText] = {}
    for row in json_lines(path):
        name = row.text("vid_name")
        if name in found:
            raise row.fail(f"vid_name {name} occurs twice: remove one of the lines")
        cues = row.values.get("sub")
        if not isinstance(cues, list) or not all(isinstance(cue, dict) for cue in cues):
            raise row.fail("sub must be a list of objects with text, start and end")
        lines = Lines()
        for cue in cues:
            lines.add(cue.get("start"), cue.get("end"), cue.get("text"))
        found[name] = lines.done()
    return found


def read_transcripts(path: Path, wanted: Callable[[str], bool] = lambda _: True) -> dict[str, TimedText]:
    """HowTo100M's `caption.json` or `raw_caption.json`: {video: {start: [], end: [], text: []}}.

    The file has gigabytes: videos are read one by one, and only the wanted ones are kept.

    Args:
        path: the file.
        wanted: whether a video is needed, by its name.

    Raises:
        InputError: the file is missing or malformed.
    """
    return {name: _columns(path, name, value) for name, value in _stream_object(path) if wanted(name)}


def _columns(path: Path, name: str, value: Any) -> TimedText:
    fields = value if isinstance(value, dict) else {}
    columns: list[Any] = [fields.get(field) for field in ("start", "end", "text")]
    if not all(isinstance(column, list) for column in columns):
        raise InputError(f"{path}, video {name}: must be an object with the lists start, end and text")
    if len({len(column) for column in columns}) > 1:
        lengths = ", ".join(str(len(column)) for column in columns)
        raise InputError(
            f"{path}, video {name}: start, end and text have {lengths} items: as many are needed"
        )
    lines = Lines()
    for start, end, text in zip(*columns, strict=True):
        lines.add(start, end, text)
    return lines.done()


class _Text:
    """The text of a file from one place on; more is read when it is needed."""

    def __init__(self, file: IO[str], path: Path) -> None:
        self._file, self._path = file, path
        self._text, self._at, self._ended = "", 0, False
        self._decoder = json.JSONDecoder()

    def _more(self, size: int = _BLOCK_CHARACTERS) -> bool:
        block = "" if self._ended else self._file.read(size)
        self._ended = not block
        if block:
            self._text, self._at = self._text[self._at :] + block, 0
        return bool(block)

    def peek(self) -> str:
        """The next character that is not white space; empty at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _SPACE:
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def take(self, expected: str) -> None:
        """Step over one character."""
        if self.peek() != expected:
            raise self.fail(f"{expected!r} is expected, not {self.peek()!r}")
        self._at += 1

    def value(self) -> Any:
        """The next JSON value."""
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # A value that is not whole yet: read as much again, so that its length costs no square.
                cut = error.msg.startswith("Unterminated") or error.pos >= len(self._text) - _LONGEST_WORD
                if cut and self._more(max(_BLOCK_CHARACTERS, len(self._text) - self._at)):
                    continue
                raise self.fail(error.msg) from error
            except RecursionError as error:
                raise self.fail("its values are nested too deep") from error
            if end < len(self._text) or not self._more():
                self._at = end
                return value

    def fail(self, reason: str) -> InputError:
        return InputError(f"{self._path} is not JSON as HowTo100M's caption.json is ({reason}): get it again")


def _stream_object(path: Path) -> Iterator[tuple[str, Any]]:
    """The entries of the one object in a JSON file, of which only a part is in memory."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = _Text(file, path)
            text.take("{")
            while text.peek() != "}":
                name = text.value()
                if not isinstance(name, str):
                    raise text.fail(f"{name!r} is no name of a video")
                text.take(":")
                yield name, text.value()
                if text.peek() != "}":
                    text.take(",")
            text.take("}")
            if text.peek():
                raise text.fail(f"{text.peek()!r} follows the end")
    except FileNotFoundError as error:
        raise InputError(f"no file {path}: set data.subtitles to the data set's subtitles") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text: {error}") from error
