"""Progress of an indexing run, on stderr: a bar on a terminal, otherwise a line every few seconds."""

import time
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

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
from indexer.library.records import displayable
from indexer.stages.base import StageName
from model.runtime.messages import printable
from service.cli.index_counts import RunCounts, has_failed
from service.cli.printing import plain

_LINE_SECONDS = 10.0
#: What a stage does, before "N videos".
_STAGES: dict[StageName, str] = {
    "speech": "hearing speech in",
    "screen": "reading the text in the pictures of",
    "shots": "looking for cuts in",
}


class ProgressView:
    """Shows the events of a run. A context manager: the bar is removed at the end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last_line = time.monotonic()
        self._counts = RunCounts()
        self._bar: Progress | None = None
        self._task = TaskID(0)
        if console.is_terminal:
            columns = (
                SpinnerColumn(),
                MofNCompleteColumn(),
                TextColumn("files"),
                BarColumn(),
                TextColumn("{task.fields[speed]}"),
                TimeElapsedColumn(),
                TextColumn("{task.fields[left]}"),
                TextColumn("{task.description}"),
            )
            self._bar = Progress(*columns, console=console, transient=True)

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task("looking for videos", total=None, speed="", left="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        self._counts(event)
        match event:
            case Scanned():
                self._scanned(event)
            case FileStarted() | StageFileStarted():
                if self._bar:
                    self._bar.update(self._task, description=escape(printable(_short(event.path))))
            case SegmentEncoded() | StageRead():
                self._refresh()
            case StageStarted():
                self._stage_started(event)
            case StageFileDone():
                self._file_done(event, event.problem)
            case FileDone():
                self._file_done(event, f"{event.reason}")
            case FileNotReached():
                # As for failures, see `_file_done`.
                if not self._bar:
                    self._say(f"not reachable: {displayable(event.path)}: {event.reason}")
                self._refresh()
            case FileStillWritten():
                if not self._bar:
                    self._say(f"still being written: {displayable(event.path)}")
                self._refresh()
            case Published():
                state = "published" if event.served else "ready beside the one that is served"
                self._say(
                    f"snapshot {event.number} is {state}: {event.num_videos} videos, "
                    f"{event.num_segments} segments"
                )
            case Note():
                self._say(event.text)

    @property
    def throughput(self) -> float:
        """Hours of video indexed per hour so far."""
        return self._counts.video_seconds / max(self._counts.seconds, 1e-9)

    def _scanned(self, event: Scanned) -> None:
        for path, reason in event.problems:
            self._say(f"{displayable(path)}: {reason}; skipped")
        self._say(f"{event.files} files found, {event.unchanged} unchanged, {event.to_read} to read")
        self._begin(event.to_read)

    def _stage_started(self, event: StageStarted) -> None:
        if event.videos:
            self._say(f"{_STAGES[event.stage]} {event.videos} videos")
        self._begin(event.videos)

    def _begin(self, total: int) -> None:
        """Begin to count files."""
        self._last_line = time.monotonic()
        if self._bar:
            self._bar.update(self._task, total=total, completed=0, description="", speed="", left="")

    def _file_done(self, event: FileDone | StageFileDone, problem: str | None) -> None:
        # Without a bar, show failures when they happen; on a terminal, the summary lists them.
        if has_failed(event) and not self._bar:
            what = event.verdict if isinstance(event, FileDone) else event.stage
            self._say(f"{what}: {displayable(event.path)}: {problem}")
        self._refresh()

    def _refresh(self) -> None:
        now = time.monotonic()
        speed = f"{self.throughput:.1f} h of video/h"
        counts, left = self._counts, self._time_left()
        if self._bar:
            self._bar.update(self._task, completed=counts.done, speed=speed, left=left)
        elif now - self._last_line >= _LINE_SECONDS:
            self._last_line = now
            self._say(f"{counts.done}/{counts.total} files, {counts.failed} failed, {speed}, {left}")

    def _time_left(self) -> str:
        seconds = self._counts.seconds_left
        if seconds is None:
            return ""
        hours, minutes = divmod(round(seconds / 60), 60)
        return f"{hours} h {minutes:02d} min left" if hours or minutes else f"{seconds:.0f} s left"

    def _say(self, text: str) -> None:
        target = self._bar.console if self._bar else self._console
        target.print(plain(text), highlight=False, soft_wrap=True)


def _short(path: Path, most: int = 40) -> str:
    name = displayable(path).rsplit("/", 1)[-1]
    return name if len(name) <= most else f"{name[: most - 1]}…"
