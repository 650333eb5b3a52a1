"""The commit policy: when rows are committed and published, and what happens at the end of a run."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from indexer.decode import FileOutcome, FileUnchanged, FileUnreached, FileVerdict
from indexer.earlier import EarlierGeneration
from indexer.encode import EncodedSegment, SegmentLost
from indexer.events import Event, Failure, FileDone, FileNotReached, IndexSummary, Note, Published
from indexer.file_texts import FileTexts
from indexer.library.generations import base_manifest, complete
from indexer.library.publish import PublishOptions, needs_publishing, publish, remove_due_snapshots
from indexer.library.records import SEARCHABLE, displayable
from indexer.library.schema import LINE_KINDS, STAGE_KINDS, LineRow, SegmentRow, VideoRow
from indexer.library.vectors.base import AUTOMATIC
from indexer.library.writer import LibraryWriter
from indexer.place import no_longer_exists
from indexer.plan import IndexTask
from indexer.stages.base import StageName, StageResult, with_source
from indexer.stored_lines import with_lines, with_stage

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
        earlier: the generation that is served, if this one is another: what it has read need not be read
            again.
        clock: returns seconds; only differences matter.
    """

    def __init__(
        self,
        writer: LibraryWriter,
        options: CommitOptions,
        emit: Callable[[Event], None],
        summary: IndexSummary,
        clock: Callable[[], float] = time.monotonic,
        earlier: EarlierGeneration | None = None,
    ) -> None:
        self._writer = writer
        self._options = options
        self._emit = emit
        self._summary = summary
        self._clock = clock
        self._earlier = earlier
        #: Segments that were set aside, of unfinished files, by ingest id.
        self._lost: dict[str, list[SegmentLost]] = {}
        #: Numbers of segments and frames of unfinished files, by ingest id.
        self._counts: dict[str, tuple[int, int]] = {}
        self._touched: list[VideoRow] = []
        #: Ids of videos whose results of a stage are not committed yet.
        self._staged: set[str] = set()
        self._last_flush = self._last_publish = clock()
        self._publishing_took = 0.0

    def add(self, rows: Sequence[EncodedSegment]) -> None:
        """See `Sink`."""
        good = []
        for row in rows:
            lost = row if isinstance(row, SegmentLost) else _lost_if_not_finite(row)
            if lost is not None:
                self._lost.setdefault(lost.ingest_id, []).append(lost)
            elif isinstance(row, SegmentRow):
                segments, frames = self._counts.get(row.ingest_id, (0, 0))
                self._counts[row.ingest_id] = (segments + 1, frames + len(row.thumbnails))
                # Numbers without gaps, where segments before are left out.
                good.append(replace(row, segment_index=segments))
        self._writer.add_segments(good)

    def finish(self, task: IndexTask, outcome: FileOutcome, texts: FileTexts | None = None) -> None:
        """See `Sink`. Commits and publishes when it is due."""
        if texts is not None:
            self._summary.text_problems += texts.problems
        if isinstance(outcome, FileUnchanged):
            self._finish_unchanged(task, outcome, texts)
        elif isinstance(outcome, FileUnreached):
            self._finish_unreached(task, outcome)
        else:
            self._finish_decoded(task, outcome, texts)
        self._commit_when_due()

    def close(self, *, interrupted: bool) -> None:
        """See `Sink`. Prunes, unless interrupted, and publishes."""
        self._flush()
        self._prune(interrupted=interrupted)
        self._name_all()
        self._publish(last=True)

    def carry_over(self) -> None:
        """Give committed videos what stages have found in them since, in the generation that is served."""
        for row in list(self._writer.videos.values()):
            if self._earlier is None or row.verdict not in SEARCHABLE or not self._earlier.stages(row):
                continue
            carried, lines = self._earlier.with_stages(row, self._writer.lines_of(row, LINE_KINDS))
            if carried != row:
                same = carried.texts_ingest_id == row.texts_ingest_id
                self._writer.finish(carried, () if same else lines)
                self._summary.carried += 1
        self._flush()

    def complete(self) -> None:
        """Note that the run has come to its end: what is staged may be published."""
        if self._summary.snapshot is not None and not self._options.publish.serve:
            complete(self._writer.library.path, self._summary.snapshot)

    def add_stage(self, video_id: str, stage: StageName, source: str, result: StageResult | None) -> None:
        """Add what a stage has found in a video, after `close`. Commits and publishes when it is due.

        Args:
            video_id: the video.
            stage: the stage.
            source: the stage's key.
            result: what it has found; None: it failed, and what it found in an earlier run stays.
        """
        if video_id in self._staged:
            self._flush()
        video = self._writer.videos[video_id]
        if result is None:
            self._writer.finish(with_source(video, stage, source))
        else:
            before = self._writer.lines_of(video, LINE_KINDS)
            self._writer.finish(*with_stage(video, stage, source, result, before))
        self._staged.add(video_id)
        self._commit_when_due()

    def close_stages(self) -> None:
        """Commit and publish what stages have found."""
        self._flush()
        self._publish(last=True)

    def _name_all(self) -> None:
        """Give their names to videos whose texts have not been read: their media may be away."""
        for row in list(self._writer.videos.values()):
            if row.verdict in SEARCHABLE and row.texts_ingest_id is None:
                self._writer.finish(*with_lines(row, None))
        self._flush()

    def _finish_decoded(self, task: IndexTask, outcome: FileVerdict, texts: FileTexts | None) -> None:
        segments, frames = self._counts.pop(task.ingest_id, (0, 0))
        verdict, reason = outcome.verdict, outcome.reason
        lost = self._lost.pop(task.ingest_id, [])
        if verdict in SEARCHABLE and lost:
            verdict = "partial" if segments else "unsupported"
            reason = "; ".join(filter(None, [reason, _describe(lost)]))
        elif verdict in SEARCHABLE and segments == 0:
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
        lines: Sequence[LineRow] = ()
        if verdict in SEARCHABLE:
            row, lines = self._with_texts(row, texts)
        self._writer.finish(row, lines)
        summary = self._summary
        summary.lines += _count_spoken(lines)
        summary.verdicts[verdict] += 1
        if verdict != "ok":
            summary.failures.append(Failure(task.path, verdict, reason or ""))
        summary.segments += segments
        summary.frames += frames
        if segments:
            summary.video_seconds += row.duration_seconds
        self._emit(FileDone(task.path, verdict, reason, row.duration_seconds, segments))

    def _with_texts(self, row: VideoRow, texts: FileTexts | None) -> tuple[VideoRow, Sequence[LineRow]]:
        """The row of a new video, and its lines: those that were read, and those that are carried over."""
        known = None if self._earlier is None or texts is not None else self._earlier.subtitles(row)
        lines: Sequence[LineRow]
        row, lines = with_lines(row, texts, () if known is None else known[1])
        if known is not None:
            row = replace(row, text_sources=known[0])
        staged = row
        if self._earlier is not None:
            staged, lines = self._earlier.with_stages(row, lines)
        self._summary.carried += known is not None or staged != row
        return staged, lines

    def _finish_unchanged(self, task: IndexTask, outcome: FileUnchanged, texts: FileTexts | None) -> None:
        row = self._writer.videos[task.video_id]
        touched = replace(row, mtime_ns=outcome.mtime_ns)
        if texts is not None and texts.sources is not None and row.verdict in SEARCHABLE:
            touched, lines = with_lines(touched, texts, self._writer.lines_of(row, STAGE_KINDS))
            self._writer.finish(touched, lines)
            self._summary.lines += _count_spoken(lines)
        elif touched != row:
            self._touched.append(touched)
        self._summary.unchanged += 1
        self._summary.failed_before += row.verdict not in SEARCHABLE
        self._emit(FileDone(task.path, None, None, row.duration_seconds, row.num_segments))

    def _finish_unreached(self, task: IndexTask, outcome: FileUnreached) -> None:
        """Forget what was read of it: nothing that the library has of the file changes."""
        self._counts.pop(task.ingest_id, None)
        self._lost.pop(task.ingest_id, None)
        self._writer.discard(task.ingest_id)
        row = self._writer.videos.get(task.video_id)
        self._summary.not_reached.append((task.path, outcome.reason))
        self._summary.not_reached_searchable += row is not None and row.verdict in SEARCHABLE
        self._emit(FileNotReached(task.path, outcome.reason))

    def _commit_when_due(self) -> None:
        now = self._clock()
        if (
            now - self._last_flush >= self._options.flush_seconds
            or self._writer.uncommitted_segments >= _FLUSH_SEGMENTS
            or self._writer.uncommitted_bytes >= _FLUSH_BYTES
        ):
            self._flush()
            self._last_flush = self._clock()
        if not self._options.publish.serve:
            # Nobody looks at it before the end.
            return
        pause = max(self._options.publish_seconds, _PUBLISH_SHARE * self._publishing_took)
        if now - self._last_publish >= pause:
            self._flush()
            self._publish(last=False)
            self._last_flush = self._last_publish = self._clock()
            self._publishing_took = self._last_publish - now

    def _flush(self) -> None:
        self._writer.flush()
        self._staged.clear()
        if self._touched:
            self._writer.touch(self._touched)
            self._touched = []

    def _prune(self, *, interrupted: bool) -> None:
        videos = self._writer.videos
        # Look again: a share that was away when the run began may be back.
        vanished = [
            video_id
            for video_id in self._options.vanished
            if video_id in videos and no_longer_exists(Path(os.fsdecode(videos[video_id].path)))
        ]
        if self._options.prune and not interrupted:
            if vanished:
                self._writer.remove(vanished)
            self._summary.removed = len(vanished)
        else:
            self._summary.vanished = len(vanished)

    def _report_set_aside(self) -> None:
        """Name the videos of earlier runs that publishing has set aside."""
        for row in self._writer.set_aside:
            path = Path(os.fsdecode(row.path))
            self._summary.failures.append(Failure(path, "unsupported", row.reason or ""))
            self._emit(Note(f"{displayable(path)} is set aside: {row.reason}"))
        self._writer.set_aside = []

    def _publish(self, *, last: bool) -> None:
        options, summary = self._options.publish, self._summary
        library = self._writer.library
        manifest = base_manifest(library.path, library.generation)
        if manifest is None or needs_publishing(self._writer, manifest, options):
            manifest = publish(self._writer, options, last=last)
            self._report_set_aside()
            summary.published = options.serve
            requested = manifest.index_requested
            if requested not in (AUTOMATIC, manifest.index_factory) and manifest.num_segments:
                self._emit(
                    Note(f"too few segments for an index {requested!r} yet: the index is exact (Flat)")
                )
            self._emit(
                Published(manifest.number, manifest.num_videos, manifest.num_segments, served=options.serve)
            )
        elif last:
            remove_due_snapshots(self._writer, options)
        summary.snapshot = manifest.number
        summary.num_videos, summary.num_segments = manifest.num_videos, manifest.num_segments


def _lost_if_not_finite(row: SegmentRow) -> SegmentLost | None:
    """Why a row may not be stored: vectors that are not finite cannot be searched."""
    for name, vectors in (("embedding", row.embedding), ("frame_salience", row.frame_salience)):
        if not np.isfinite(vectors).all():
            reason = f"its {name} holds NaN or infinity"
            return SegmentLost(row.ingest_id, row.start_seconds, reason)
    return None


def _count_spoken(lines: Sequence[LineRow]) -> int:
    return sum(line.kind == "speech" for line in lines)


def _describe(lost: Sequence[SegmentLost]) -> str:
    """A verdict's reason: how many segments are missing, where the first one is, and why."""
    first = lost[0]
    number = "a segment is" if len(lost) == 1 else f"{len(lost)} segments are"
    return f"{number} left out, from {first.start_seconds:.1f} s on: {first.reason}"
