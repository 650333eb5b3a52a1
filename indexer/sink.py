"""The writer's thread: rows into commits, commits into snapshots, verdicts into the summary."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from indexer.encode import Encoded
from indexer.engines.channel import Channel
from indexer.engines.worker import Decoded, Unchanged
from indexer.events import Event, Failure, FileDone, IndexSummary, Note, Published
from indexer.library.publish import PublishOptions, needs_publishing, publish, served
from indexer.library.records import SEARCHABLE
from indexer.library.schema import SegmentRow, VideoRow
from indexer.library.vectors.base import AUTOMATIC
from indexer.library.writer import LibraryWriter
from indexer.plan import Task

#: Finished segments beyond so many, or so much memory, are committed at once.
_FLUSH_SEGMENTS = 128
_FLUSH_BYTES = 48 << 20
#: Between two snapshots passes at least so many times what publishing one took.
_PUBLISH_SHARE = 20


@dataclass(frozen=True)
class Ending:
    """When to commit and to publish, and what to do at the end."""

    publish: PublishOptions
    publish_seconds: float
    flush_seconds: float
    vanished: list[str]
    prune: bool


class WriterThread:
    """Takes rows and ends of files from a queue; None ends the run."""

    def __init__(
        self,
        writer: LibraryWriter,
        inbox: Channel[Encoded],
        ending: Ending,
        emit: Callable[[Event], None],
        stop: threading.Event,
        summary: IndexSummary,
    ) -> None:
        self._writer = writer
        self._inbox = inbox
        self._ending = ending
        self._emit = emit
        self._stop = stop
        self._summary = summary
        self._counts: dict[str, tuple[int, int]] = {}
        self._touched: list[VideoRow] = []

    def run(self) -> None:
        """Write until the queue ends, then prune and publish."""
        flushed = published = time.monotonic()
        publishing = 0.0
        while (item := self._inbox.get()) is not None:
            if isinstance(item, list):
                self._add(item)
                continue
            task, outcome = item
            if isinstance(outcome, Unchanged):
                self._keep(task, outcome)
            else:
                self._finish(task, outcome)
            now = time.monotonic()
            if (
                now - flushed >= self._ending.flush_seconds
                or self._writer.uncommitted_segments >= _FLUSH_SEGMENTS
                or self._writer.uncommitted_bytes >= _FLUSH_BYTES
            ):
                self._flush()
                flushed = time.monotonic()
            if now - published >= max(self._ending.publish_seconds, _PUBLISH_SHARE * publishing):
                self._flush()
                self._publish(last=False)
                flushed = published = time.monotonic()
                publishing = published - now
        self._flush()
        self._prune()
        self._publish(last=True)

    def _add(self, rows: list[SegmentRow]) -> None:
        for row in rows:
            segments, frames = self._counts.get(row.ingest_id, (0, 0))
            self._counts[row.ingest_id] = (segments + 1, frames + len(row.thumbnails))
        self._writer.add_segments(rows)

    def _finish(self, task: Task, outcome: Decoded) -> None:
        segments, frames = self._counts.pop(task.ingest_id, (0, 0))
        verdict, reason = outcome.verdict, outcome.reason
        if verdict in SEARCHABLE and segments == 0:
            verdict, reason = "corrupt", reason or "no frame could be decoded"
        if verdict not in SEARCHABLE:
            self._writer.discard(task.ingest_id)
            segments = frames = 0
        info = outcome.info
        row = VideoRow(
            video_id=task.video_id,
            ingest_id=task.ingest_id,
            path=os.fsencode(task.path),
            sha256=outcome.sha256,
            bytes=outcome.bytes,
            mtime_ns=outcome.mtime_ns,
            duration_seconds=info.duration_seconds if info else 0.0,
            fps=info.fps if info else 0.0,
            width=info.width if info else 0,
            height=info.height if info else 0,
            codec=info.codec if info else "",
            container=info.container if info else "",
            title=info.title if info else None,
            verdict=verdict,
            reason=reason,
            num_segments=segments,
            num_frames=frames,
            indexed_at=datetime.now(UTC),
        )
        self._writer.finish(row)
        summary = self._summary
        summary.verdicts[verdict] += 1
        if verdict != "ok":
            summary.failures.append(Failure(task.path, verdict, reason or ""))
        summary.segments += segments
        summary.frames += frames
        if segments:
            summary.video_seconds += row.duration_seconds
        self._emit(FileDone(task.path, verdict, reason, row.duration_seconds, segments))

    def _keep(self, task: Task, outcome: Unchanged) -> None:
        row = self._writer.known[task.video_id]
        self._touched.append(replace(row, mtime_ns=outcome.mtime_ns))
        self._summary.unchanged += 1
        self._summary.failed_before += row.verdict not in SEARCHABLE
        self._emit(FileDone(task.path, None, None, row.duration_seconds, row.num_segments))

    def _flush(self) -> None:
        self._writer.flush()
        if self._touched:
            self._writer.touch(self._touched)
            self._touched = []

    def _prune(self) -> None:
        vanished = [video_id for video_id in self._ending.vanished if video_id in self._writer.known]
        if self._ending.prune and not self._stop.is_set():
            if vanished:
                self._writer.remove(vanished)
            self._summary.removed = len(vanished)
        else:
            self._summary.vanished = len(vanished)

    def _publish(self, *, last: bool) -> None:
        options, summary = self._ending.publish, self._summary
        manifest = served(self._writer.library.path)
        if manifest is None or needs_publishing(self._writer, manifest, options):
            manifest = publish(self._writer, options, last=last)
            summary.published = True
            asked = manifest.index_requested
            if asked not in (AUTOMATIC, manifest.index_factory) and manifest.num_segments:
                self._emit(Note(f"too few segments for an index {asked!r} yet: it is exact (Flat) for now"))
            self._emit(Published(manifest.number, manifest.num_videos, manifest.num_segments))
        summary.snapshot = manifest.number
        summary.num_videos, summary.num_segments = manifest.num_videos, manifest.num_segments
