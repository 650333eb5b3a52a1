"""The commit policy: when rows are committed and published, and what happens at the end of a run."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from indexer.decode import FileOutcome, FileUnchanged, FileVerdict
from indexer.events import Event, Failure, FileDone, IndexSummary, Note, Published
from indexer.library.publish import PublishOptions, needs_publishing, publish, served_manifest
from indexer.library.records import SEARCHABLE
from indexer.library.schema import SegmentRow, VideoRow
from indexer.library.vectors.base import AUTOMATIC
from indexer.library.writer import LibraryWriter
from indexer.plan import IndexTask

#: Finished segments, in number or in memory, above which they are committed at once.
_FLUSH_SEGMENTS = 128
_FLUSH_BYTES = 48 << 20
#: At least this many times the duration of publishing passes between two snapshots.
_PUBLISH_SHARE = 20


@dataclass(frozen=True)
class CommitOptions:
    """When to commit and to publish, and what to do at the end.

    Attributes:
        publish: how to publish.
        publish_seconds: about how often to publish; less often where publishing takes long.
        flush_seconds: about how often to commit finished videos.
        vanished: ids of the videos whose files are gone.
        prune: remove the vanished videos at the end.
    """

    publish: PublishOptions
    publish_seconds: float
    flush_seconds: float
    vanished: Sequence[str] = ()
    prune: bool = False


class LibrarySink:
    """A `Sink` that writes a library. It has no thread: it works only when it is called.

    Args:
        writer: the library's writer; only this sink uses it.
        options: when to commit and to publish.
        emit: receives events: files that are done, and snapshots.
        summary: the summary to fill in.
        clock: returns seconds; only differences matter.
    """

    def __init__(
        self,
        writer: LibraryWriter,
        options: CommitOptions,
        emit: Callable[[Event], None],
        summary: IndexSummary,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._writer = writer
        self._options = options
        self._emit = emit
        self._summary = summary
        self._clock = clock
        #: Numbers of segments and frames of unfinished files, by ingest id.
        self._counts: dict[str, tuple[int, int]] = {}
        self._touched: list[VideoRow] = []
        self._last_flush = self._last_publish = clock()
        self._publishing_took = 0.0

    def add(self, rows: Sequence[SegmentRow]) -> None:
        """See `Sink`."""
        for row in rows:
            segments, frames = self._counts.get(row.ingest_id, (0, 0))
            self._counts[row.ingest_id] = (segments + 1, frames + len(row.thumbnails))
        self._writer.add_segments(rows)

    def finish(self, task: IndexTask, outcome: FileOutcome) -> None:
        """See `Sink`. Commits and publishes when it is due."""
        if isinstance(outcome, FileUnchanged):
            self._finish_unchanged(task, outcome)
        else:
            self._finish_decoded(task, outcome)
        self._commit_when_due()

    def close(self, *, interrupted: bool) -> None:
        """See `Sink`. Prunes, unless interrupted, and publishes."""
        self._flush()
        self._prune(interrupted=interrupted)
        self._publish(last=True)

    def _finish_decoded(self, task: IndexTask, outcome: FileVerdict) -> None:
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
            container_start_seconds=info.container_start_seconds if info else None,
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

    def _finish_unchanged(self, task: IndexTask, outcome: FileUnchanged) -> None:
        row = self._writer.videos[task.video_id]
        self._touched.append(replace(row, mtime_ns=outcome.mtime_ns))
        self._summary.unchanged += 1
        self._summary.failed_before += row.verdict not in SEARCHABLE
        self._emit(FileDone(task.path, None, None, row.duration_seconds, row.num_segments))

    def _commit_when_due(self) -> None:
        now = self._clock()
        if (
            now - self._last_flush >= self._options.flush_seconds
            or self._writer.uncommitted_segments >= _FLUSH_SEGMENTS
            or self._writer.uncommitted_bytes >= _FLUSH_BYTES
        ):
            self._flush()
            self._last_flush = self._clock()
        pause = max(self._options.publish_seconds, _PUBLISH_SHARE * self._publishing_took)
        if now - self._last_publish >= pause:
            self._flush()
            self._publish(last=False)
            self._last_flush = self._last_publish = self._clock()
            self._publishing_took = self._last_publish - now

    def _flush(self) -> None:
        self._writer.flush()
        if self._touched:
            self._writer.touch(self._touched)
            self._touched = []

    def _prune(self, *, interrupted: bool) -> None:
        vanished = [video_id for video_id in self._options.vanished if video_id in self._writer.videos]
        if self._options.prune and not interrupted:
            if vanished:
                self._writer.remove(vanished)
            self._summary.removed = len(vanished)
        else:
            self._summary.vanished = len(vanished)

    def _publish(self, *, last: bool) -> None:
        options, summary = self._options.publish, self._summary
        manifest = served_manifest(self._writer.library.path)
        if manifest is None or needs_publishing(self._writer, manifest, options):
            manifest = publish(self._writer, options, last=last)
            summary.published = True
            requested = manifest.index_requested
            if requested not in (AUTOMATIC, manifest.index_factory) and manifest.num_segments:
                self._emit(
                    Note(f"too few segments for an index {requested!r} yet: the index is exact (Flat)")
                )
            self._emit(Published(manifest.number, manifest.num_videos, manifest.num_segments))
        summary.snapshot = manifest.number
        summary.num_videos, summary.num_segments = manifest.num_videos, manifest.num_segments
