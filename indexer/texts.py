"""Reads one source of text: a subtitle file beside a video, or the text tracks in it.

As with pictures, an engine decides where it runs: where a file may do no harm. This module imports neither
Lance, FAISS nor ONNX Runtime, so that a decoding process starts fast.
"""

import stat as modes
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from indexer.decode import OUT_OF_MEMORY, Alive, FileUnreached
from indexer.library.records import Verdict
from indexer.place import place_error, unreached
from model.runtime.errors import VideoError
from model.runtime.faults import checkpoint
from model.runtime.remote.path import media_path
from model.runtime.timed_text import Lines, TimedText
from model.runtime.video import ReadingLimits
from model.runtime.video.limits import LimitReachedError

#: No line begins or ends later; see `MAX_SECONDS` of frames.
MAX_TEXT_SECONDS = 1e6
#: Lines of one video, at most: a day with one every second has a tenth of it.
MAX_LINES = 1_000_000
TOO_MANY = f"lines beyond {MAX_LINES} of the video are left out"
#: Lines of one message, and about its bytes.
_MESSAGE_LINES = 500
_MESSAGE_BYTES = 1 << 16


@dataclass(frozen=True)
class TextJob:
    """One source of text to read.

    Attributes:
        path: the file's path in bytes: of subtitles, or of a video with text tracks.
        kind: which of them.
        language: of subtitles, as their name gives it.
        fps: frames a second of the video, for subtitles that count frames; 0: unknown.
        size: the file's size in bytes when it was found; 0: unknown.
        reading: what reading may take.
    """

    path: bytes
    kind: Literal["subtitles", "tracks"]
    language: str | None
    fps: float
    size: int
    reading: ReadingLimits = field(default_factory=ReadingLimits)

    @property
    def file(self) -> Path:
        """The file's path."""
        return media_path(self.path)


@dataclass(frozen=True)
class SourceLine:
    """A line, with times in seconds from the start of the video; see `TimedLine`."""

    start_seconds: float
    end_seconds: float
    text: str


@dataclass(frozen=True)
class SourceLines:
    """Lines of one language."""

    language: str | None
    lines: tuple[SourceLine, ...]


@dataclass(frozen=True)
class SourceRead:
    """The end of a source. The reason says why the verdict is not "ok"; what was read until then counts."""

    verdict: Verdict
    reason: str | None


#: What comes from reading a source: its lines, then how it ended. `Alive` may come at any time before.
SourceMessage = Alive | SourceLines | SourceRead | FileUnreached


def read_source(job: TextJob) -> Iterator[SourceMessage]:
    """Read one source. No file makes it raise an error: a failure becomes the verdict.

    Yields:
        Its lines, then one `SourceRead` or `FileUnreached`.
    """
    checkpoint(f"texts.{job.file.name}")
    try:
        if job.kind == "subtitles":
            yield from _read_subtitles(job)
        else:
            yield from _read_tracks(job)
    except OSError as error:
        yield FileUnreached(f"cannot be read: {place_error(error)}")
    except VideoError as error:
        yield SourceRead(error.verdict, str(error).removeprefix(f"{job.file}: "))
    except MemoryError:
        yield SourceRead("corrupt", OUT_OF_MEMORY)
    except Exception as error:
        # Parsers may raise any error on unusual input: it becomes the verdict, and the run continues.
        yield SourceRead("corrupt", f"the reader failed: {type(error).__name__}: {error}")


def _read_subtitles(job: TextJob) -> Iterator[SourceMessage]:
    # Loaded here: most libraries have no subtitles.
    from model.runtime.timed_text.subtitles import MAX_SUBTITLE_BYTES, SubtitleError, parse_subtitles

    stat = job.file.stat()
    if not modes.S_ISREG(stat.st_mode):
        yield SourceRead("unsupported", "it is not a regular file")
        return
    if stat.st_size > MAX_SUBTITLE_BYTES:
        megabytes = MAX_SUBTITLE_BYTES >> 20
        yield SourceRead("unsupported", f"it is larger than {megabytes} MiB: no subtitles are")
        return
    data = job.file.read_bytes()
    if not data.strip():
        yield SourceRead("corrupt", "it is empty")
        return
    try:
        text = parse_subtitles(data, job.fps or None)
    except SubtitleError as error:
        yield SourceRead(error.verdict, str(error))
        return
    yield from _messages(text, job.language)
    wrong = text.left_out.get("unreadable", 0) + text.left_out.get("backwards", 0)
    reason = f"{wrong} of its lines are left out: their times cannot be" if wrong else None
    if len(text.lines) > MAX_LINES:
        reason = TOO_MANY
    yield SourceRead("ok" if reason is None else "partial", reason)


def _read_tracks(job: TextJob) -> Iterator[SourceMessage]:
    # Loaded here, as above.
    from model.runtime.video.text_tracks import read_text_tracks

    device = job.file.stat().st_dev
    found: dict[str | None, Lines] = {}
    reason, count = None, 0
    try:
        for line in read_text_tracks(job.file, job.reading):
            if line is None:
                yield Alive()
                continue
            count += 1
            if count > MAX_LINES:
                reason = TOO_MANY
                break
            lines = found.setdefault(line.language, Lines())
            lines.add(line.start_seconds, line.end_seconds, line.text)
    except LimitReachedError as limit:
        reason = str(limit)
    except VideoError:
        if (lost := unreached(job.file, device)) is None:
            raise
        yield FileUnreached(lost)
        return
    # Libraries report a share that goes away as the end of the file.
    if (lost := unreached(job.file, device)) is not None:
        yield FileUnreached(lost)
        return
    for language, lines in found.items():
        yield from _messages(lines.done(), language)
    yield SourceRead("ok" if reason is None else "partial", reason)


def _messages(text: TimedText, language: str | None) -> Iterator[SourceLines]:
    lines: list[SourceLine] = []
    size = 0
    for line in text.lines[:MAX_LINES]:
        if line.end_seconds > MAX_TEXT_SECONDS:
            continue
        # 4 bytes a character at most, and the times.
        size += 4 * len(line.text) + 24
        if lines and (len(lines) == _MESSAGE_LINES or size > _MESSAGE_BYTES):
            yield SourceLines(language, tuple(lines))
            lines, size = [], 4 * len(line.text) + 24
        lines.append(SourceLine(line.start_seconds, line.end_seconds, line.text))
    if lines:
        yield SourceLines(language, tuple(lines))
