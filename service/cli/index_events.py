"""The steps of an indexing run for programs: a line of JSON for each, appended to a file.

What counts files is written every second at first, and every ten seconds in a long run.
"""

import json
import time
from datetime import UTC, datetime
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
        self._stage, self._stage_begun = PICTURES, self._begun
        self._total = self._done = self._failed = self._problems = 0
        self._video_seconds = 0.0
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
                self._begin(PICTURES, event.to_read)
            case StageStarted():
                self._begin(event.stage, event.videos)
            case FileStarted() | StageFileStarted():
                self._path = event.path
                self._count()
            case SegmentEncoded() | StageRead():
                self._video_seconds += event.seconds
                self._count()
            case FileDone():
                bad = event.verdict not in (None, "ok")
                self._file_done(event.verdict if bad else None, event.path, event.reason)
            case StageFileDone():
                self._file_done(None if event.problem is None else event.stage, event.path, event.problem)
            case FileNotReached():
                self._problem("not_reachable", event.path, event.reason)
                self._file_done(None, event.path, None)
            case FileStillWritten():
                self._problem("still_written", event.path, "It is still being written.")
                self._file_done(None, event.path, None)
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

    def _begin(self, stage: str, total: int) -> None:
        self._stage, self._stage_begun = stage, time.monotonic()
        self._total, self._done, self._failed = total, 0, 0
        self._video_seconds, self._path = 0.0, None
        self._count(now=True)

    def _file_done(self, problem: str | None, path: Path, reason: str | None) -> None:
        self._done += 1
        if problem is not None:
            self._failed += 1
            self._problem(problem, path, reason)
        self._count()

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
        passed = time_now - self._stage_begun
        left = passed / self._done * (self._total - self._done) if self._done else None
        self._write(
            "progress",
            stage=self._stage,
            done=self._done,
            total=self._total,
            failed=self._failed,
            video_seconds=round(self._video_seconds, 3),
            elapsed_seconds=round(passed, 3),
            seconds_left=None if left is None else round(left, 1),
            path=None if self._path is None else displayable(self._path),
        )

    def _write(self, name: str, **fields: Any) -> None:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._file.write(json.dumps({"event": name, "at": at, **fields}) + "\n")
        self._file.flush()
