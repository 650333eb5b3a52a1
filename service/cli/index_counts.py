"""Counts what is done of an indexing run, for those who look on and for programs."""

import time

from indexer.events import (
    Event,
    FileDone,
    FileNotReached,
    FileStillWritten,
    Scanned,
    SegmentEncoded,
    StageFileDone,
    StageRead,
    StageStarted,
)


def has_failed(event: FileDone | StageFileDone) -> bool:
    """Whether a file was not, or only in part, read."""
    if isinstance(event, FileDone):
        return event.verdict not in (None, "ok")
    return event.problem is not None


class RunCounts:
    """How much is done of a part of a run: of the pictures, and then of each stage.

    Attributes:
        total: files that the part has to read.
        done: files that are done, also those that could not be reached or are still being written.
        failed: those of them that were not, or only in part, read.
        video_seconds: seconds of video that are read.
    """

    def __init__(self) -> None:
        self._begin(0)

    def __call__(self, event: Event) -> None:
        """Count an event."""
        match event:
            case Scanned():
                self._begin(event.to_read)
            case StageStarted():
                self._begin(event.videos)
            case SegmentEncoded() | StageRead():
                self.video_seconds += event.seconds
            case FileDone() | StageFileDone():
                self.done += 1
                self.failed += has_failed(event)
            case FileNotReached() | FileStillWritten():
                self.done += 1

    def _begin(self, total: int) -> None:
        self.total, self.done, self.failed, self.video_seconds = total, 0, 0, 0.0
        self._begun = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the part began."""
        return time.monotonic() - self._begun

    @property
    def seconds_left(self) -> float | None:
        """Seconds that the part is likely to take on; None: not known."""
        return self.seconds / self.done * (self.total - self.done) if self.done else None
