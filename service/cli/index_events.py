"""The steps of an indexing run for programs: a line of JSON for each, appended to a file.

What counts files is written every second at first, and every ten seconds in a long run.
"""

import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from indexer.events import (
    Event,
    FileDone,
    FileNotReached,
    FileStarted,
    FileStillWritten,
    Note,
    Published,
    Scanned,
    SegmentEncoded,
    StageFileDone,
    StageFileStarted,
    StageRead,
    StageStarted,
)
from indexer.library.errors import BusyError
from indexer.library.records import displayable
from model.runtime.errors import InputError
from model.runtime.exits import describe_error
from service.cli.index_counts import RunCounts, has_failed
from service.jobs.files import event_line

#: The part of a run that reads the pictures; the others are stages.
PICTURES = "pictures"
_LEAST_SECONDS, _MOST_SECONDS = 1.0, 10.0
# The pause is this part of the time that has passed.
_SHARE = 1 / 600
#: Problems of files that are written; the run's summary has all.
MOST_PROBLEMS = 10_000


class EventWriter:
    """Writes the events of a run. A context manager: at the end it tells of the error, if there was one.

    Raises:
        InputError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"events {str(path)!r} cannot be written: {error.strerror}. Name a file in a folder that "
                "exists",
                field="events",
            ) from error
        self._begun = time.monotonic()
        self._written = 0.0
        self._stage = PICTURES
        self._counts = RunCounts()
        self._problems = 0
        self._path: Path | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if isinstance(error, Exception):
                self._write("error", text=describe_error(error), busy=isinstance(error, BusyError))
            elif error is None:
                self._count(now=True)

    def __call__(self, event: Event) -> None:
        """Write an event."""
        self._counts(event)
        match event:
            case Scanned():
                for path, reason in event.problems:
                    self._problem("not_scanned", path, reason)
                self._write(
                    "scanned",
                    files=event.files,
                    to_read=event.to_read,
                    unchanged=event.unchanged,
                    failed_before=event.failed_before,
                )
                self._begin(PICTURES)
            case StageStarted():
                self._begin(event.stage)
            case FileStarted() | StageFileStarted():
                self._path = event.path
                self._count()
            case SegmentEncoded() | StageRead():
                self._count()
            case FileDone():
                if has_failed(event):
                    self._problem(str(event.verdict), event.path, event.reason)
                self._count()
            case StageFileDone():
                if has_failed(event):
                    self._problem(event.stage, event.path, event.problem)
                self._count()
            case FileNotReached():
                self._problem("not_reachable", event.path, event.reason)
                self._count()
            case FileStillWritten():
                self._problem("still_written", event.path, "It is still being written.")
                self._count()
            case Published():
                self._write(
                    "published",
                    snapshot=event.number,
                    num_videos=event.num_videos,
                    num_segments=event.num_segments,
                    served=event.served,
                )
            case Note():
                self._write("note", text=event.text)

    def _begin(self, stage: str) -> None:
        self._stage, self._path = stage, None
        self._count(now=True)

    def _problem(self, kind: str, path: Path, reason: str | None) -> None:
        self._problems += 1
        if self._problems <= MOST_PROBLEMS:
            self._write("problem", kind=kind, path=displayable(path), reason=reason)

    def _count(self, *, now: bool = False) -> None:
        """Write how many files are done, unless that was written a moment ago."""
        time_now = time.monotonic()
        pause = min(_MOST_SECONDS, max(_LEAST_SECONDS, (time_now - self._begun) * _SHARE))
        if not now and time_now - self._written < pause:
            return
        self._written = time_now
        counts, left = self._counts, self._counts.seconds_left
        self._write(
            "progress",
            stage=self._stage,
            done=counts.done,
            total=counts.total,
            failed=counts.failed,
            video_seconds=round(counts.video_seconds, 3),
            elapsed_seconds=round(counts.seconds, 3),
            seconds_left=None if left is None else round(left, 1),
            path=None if self._path is None else displayable(self._path),
        )

    def _write(self, name: str, **fields: Any) -> None:
        self._file.write(event_line(name, **fields))
        self._file.flush()
