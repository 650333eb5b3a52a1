"""The second phase of a run: each stage reads the videos that lack it, one after the other.

The pictures of all files are indexed and published by then. What a stage finds in a video is committed within
seconds, so an interruption loses little, and the next run goes on. The verdict of a video stays as it is.
"""

import math
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from indexer.decode import DecodeSpec, FileUnreached
from indexer.events import (
    Event,
    ReadingProblem,
    StageFileDone,
    StageFileStarted,
    StageRead,
    StageStarted,
    StageSummary,
)
from indexer.library.records import SEARCHABLE, Verdict, displayable, stored_ns
from indexer.library.schema import STAGE_FAILED, VideoRow
from indexer.media import MediaJob, MediaMessage, PictureChunk, SoundChunk
from indexer.stages.base import AnyStage, StageName, StageResult, is_due
from indexer.texts import SourceRead
from model.runtime.errors import ReelfindError
from model.runtime.tracing import span

#: Sampled pictures are no further apart than this, unless the picture stands still.
_MOST_STEP_SECONDS = 2.0


class MediaReader(Protocol):
    """Reads media where a file may do no harm."""

    def read_media(self, job: MediaJob) -> Generator[MediaMessage, None, None]:
        """See `FileDecoder.read_media`."""


class StageSink(Protocol):
    """Receives what stages find; see `LibrarySink`."""

    def add_stage(self, video_id: str, stage: StageName, source: str, result: StageResult | None) -> None:
        """Add what a stage has found in a video; None: it failed."""

    def close_stages(self) -> None:
        """Commit and publish all of it."""


@dataclass(frozen=True)
class StageVideo:
    """A video that was found in this run: a file of it, and the device (`st_dev`) and time of that."""

    video_id: str
    path: Path
    device: int | None
    mtime_ns: int


class StageRun:
    """Runs stages over the videos of a library.

    Args:
        videos: the committed row of every video of the library, by its id; it changes while this runs.
        spec: how the index reads videos.
        retry_failed: read videos again on which the same stage has failed.
        open_reader: opens what reads media; called once there is something to read.
        sink: receives what is found.
        emit: receives events.
        stop: when set, no further video is read, and the one being read is given up.
    """

    def __init__(
        self,
        videos: Mapping[str, VideoRow],
        spec: DecodeSpec,
        *,
        retry_failed: bool,
        open_reader: Callable[[], AbstractContextManager[MediaReader]],
        sink: StageSink,
        emit: Callable[[Event], None],
        stop: threading.Event,
    ) -> None:
        self._videos = videos
        self._spec = spec
        self._retry_failed = retry_failed
        self._open_reader = open_reader
        self._sink = sink
        self._emit = emit
        self._stop = stop

    def run(self, stages: Sequence[AnyStage], found: Sequence[StageVideo]) -> dict[StageName, StageSummary]:
        """Let each stage read those of the videos found that can be searched and lack it, then publish.

        Raises:
            ReelfindError: a stage cannot work at all; what was found by then is published.
            LibraryError: the library cannot be written.
        """
        summaries = {}
        try:
            for stage in stages:
                with ExitStack() as opened:
                    opened.callback(stage.close)
                    summaries[stage.name] = self._run_stage(stage, found, opened)
        finally:
            self._sink.close_stages()
        return summaries

    def _run_stage(self, stage: AnyStage, found: Sequence[StageVideo], opened: ExitStack) -> StageSummary:
        started = time.monotonic()
        present = [v for v in found if self._row(v) is not None]
        due = [v for v in present if (row := self._row(v)) and self._is_due(row, stage)]
        summary = StageSummary(done_before=len(present) - len(due))
        self._emit(StageStarted(stage.name, len(due)))
        reader: MediaReader | None = None
        for video in due:
            if self._stop.is_set():
                break
            try:
                reader = reader or opened.enter_context(self._open_reader())
            except Exception:
                if self._stop.is_set():
                    break
                raise
            self._read(stage, video, reader, summary)
        summary.left = len(due) - summary.videos
        summary.elapsed_seconds = time.monotonic() - started
        return summary

    def _is_due(self, row: VideoRow, stage: AnyStage) -> bool:
        return is_due(row, stage, retry_failed=self._retry_failed)

    def _row(self, video: StageVideo) -> VideoRow | None:
        """The row of a video; None where a search cannot find it."""
        row = self._videos.get(video.video_id)
        return row if row is not None and row.verdict in SEARCHABLE else None

    def _read(self, stage: AnyStage, video: StageVideo, reader: MediaReader, summary: StageSummary) -> None:
        with span(stage.name) as reading:
            reading.set("file.path", displayable(video.path))
            self._read_video(stage, video, reader, summary)

    def _read_video(
        self, stage: AnyStage, video: StageVideo, reader: MediaReader, summary: StageSummary
    ) -> None:
        row = self._videos[video.video_id]
        self._emit(StageFileStarted(stage.name, video.path))
        try:
            if lost := _changed(video, row):
                raise _LostError(lost)
            with closing(reader.read_media(self._job(stage, video, row))) as messages:
                result, problems = self._let_read(stage, video, row, _Media(messages, self._stop))
        except _StoppedError:
            return
        except _LostError as error:
            problems = [ReadingProblem(video.path, None, str(error))]
        else:
            source = stage.key if result is not None else STAGE_FAILED + stage.key
            self._sink.add_stage(video.video_id, stage.name, source, result)
            summary.videos += 1
            summary.video_seconds += row.duration_seconds
            if result is not None:
                summary.lines += len(result.lines)
                summary.cuts += len(result.cut_seconds or ())
        summary.problems += problems
        reason = "; ".join(problem.reason for problem in problems)
        self._emit(StageFileDone(stage.name, video.path, reason or None))

    def _let_read(
        self, stage: AnyStage, video: StageVideo, row: VideoRow, media: "_Media"
    ) -> tuple[StageResult | None, list[ReadingProblem]]:
        """What a stage finds in a video, None where it fails; and what went wrong.

        Raises:
            ReelfindError: the stage cannot work at all.
            _LostError: the file cannot be reached.
            _StoppedError: the run was asked to stop.
        """
        result: StageResult | None = None
        problems: list[ReadingProblem] = []
        try:
            result = _read_stage(stage, row, self._watched(media, stage, video))
            media.finish()
        except (_StoppedError, _LostError, ReelfindError):
            raise
        except Exception as error:
            if self._stop.is_set():
                raise _StoppedError from None
            # Recognizers may raise any error on unusual input: the run continues.
            reason = f"the stage failed: {type(error).__name__}: {error}"
            return None, [ReadingProblem(video.path, "corrupt", reason)]
        if media.reason is not None:
            problems.append(ReadingProblem(video.path, media.verdict, media.reason))
        problems += [ReadingProblem(video.path, "partial", problem) for problem in result.problems]
        return (result if media.verdict in SEARCHABLE else None), problems

    def _watched(
        self, media: "_Media", stage: AnyStage, video: StageVideo
    ) -> Iterator[SoundChunk | PictureChunk]:
        """The chunks of a video, with an event for each."""
        reached = 0.0
        for chunk in media.chunks():
            yield chunk
            self._emit(StageRead(stage.name, video.path, max(0.0, chunk.end_seconds - reached)))
            reached = max(reached, chunk.end_seconds)

    def _job(self, stage: AnyStage, video: StageVideo, row: VideoRow) -> MediaJob:
        return MediaJob(
            os.fsencode(video.path),
            stage.media,
            decoder=self._spec.decoder,
            segment_seconds=self._spec.segment_seconds,
            # Where the index samples fewer pictures, a text of some seconds would be missed.
            frames_per_segment=max(
                self._spec.frames_per_segment, math.ceil(self._spec.segment_seconds / _MOST_STEP_SECONDS)
            ),
            max_side=stage.max_side,
            device=video.device,
            size=row.bytes,
            duration_seconds=row.duration_seconds,
            reading=self._spec.reading,
        )


class _LostError(Exception):
    """A file cannot be reached, or is not the one that was indexed: the text says so."""


class _StoppedError(Exception):
    """The run was asked to stop."""


class _Media:
    """The chunks of one video, and how reading it ended.

    Attributes:
        verdict: after `finish`; "ok" where all of it was read.
        reason: why it is not.
    """

    def __init__(self, messages: Iterator[MediaMessage], stop: threading.Event) -> None:
        self.verdict: Verdict = "ok"
        self.reason: str | None = None
        self._messages = messages
        self._stop = stop

    def chunks(self) -> Iterator[SoundChunk | PictureChunk]:
        """What is read, until its end.

        Raises:
            _LostError: the file cannot be reached.
            _StoppedError: the run was asked to stop.
        """
        for message in self._messages:
            if self._stop.is_set():
                raise _StoppedError
            if isinstance(message, FileUnreached):
                raise _LostError(message.reason)
            if isinstance(message, SourceRead):
                self.verdict, self.reason = message.verdict, message.reason
            elif isinstance(message, SoundChunk | PictureChunk):
                yield message
        # A reader that is asked to stop may end without a last message.
        if self._stop.is_set():
            raise _StoppedError

    def finish(self) -> None:
        """Read to the end what a stage has left: how reading ends must be known."""
        for _ in self.chunks():
            pass


def _read_stage(stage: AnyStage, row: VideoRow, chunks: Iterator[Any]) -> StageResult:
    """Let a stage read chunks, which are of the kind that it asks for: `MediaMessages` has checked that."""
    return stage.read(row, chunks)


def _changed(video: StageVideo, row: VideoRow) -> str | None:
    """Why a file is not the one that was indexed; None when it is."""
    try:
        stat = video.path.stat()
    except OSError as error:
        return f"cannot be reached: {error.strerror}"
    if (stat.st_size, stored_ns(stat.st_mtime_ns)) != (row.bytes, video.mtime_ns):
        return "has changed since it was indexed: run the same command again"
    return None
