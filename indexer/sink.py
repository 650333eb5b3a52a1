"""The commit policy: when rows are committed and published, and what happens at the end of a run."""

import os
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from indexer.decode import FileKnown, FileOutcome, FileUnreached, FileVerdict
from indexer.earlier import EarlierGeneration
from indexer.encode import EncodedSegment, SegmentLost, lost_if_not_finite
from indexer.engines.base import FinishedFile
from indexer.events import Event, Failure, FileDone, FileNotReached, IndexSummary, Note, Published
from indexer.excluded import EXCLUDED, FoundExclusions
from indexer.file_facts import with_facts
from indexer.file_texts import FileTexts
from indexer.library.fragments import WrittenSegments
from indexer.library.generations import base_manifest, complete
from indexer.library.publish import PublishOptions, needs_publishing, publish, remove_due_snapshots
from indexer.library.records import SEARCHABLE, content_id, displayable, video_id_of
from indexer.library.schema import LINE_KINDS, STAGE_KINDS, FileRow, LineRow, SegmentRow, VideoRow
from indexer.library.vectors.base import AUTOMATIC
from indexer.library.writer import LibraryWriter
from indexer.place import no_longer_exists
from indexer.plan import IndexTask
from indexer.stages.base import StageName, StageResult, with_source
from indexer.stored_lines import with_lines, with_names, with_stage
from model.runtime.remote.path import RemotePath, media_path
from model.runtime.tracing import span
from model.runtime.video.facts import VideoFacts

#: Finished segments, in number or in memory, above which they are committed at once.
_FLUSH_SEGMENTS = 128
_FLUSH_BYTES = 48 << 20
#: Renamed videos whose lines are read and written together.
_NAMED_AT_ONCE = 500
#: At least this many times the duration of publishing passes between two snapshots.
_PUBLISH_SHARE = 20


@dataclass(frozen=True)
class CommitOptions:
    """When to commit and to publish, and what to do at the end.

    Attributes:
        publish: how to publish.
        publish_seconds: about how often to publish; less often where publishing takes long.
        flush_seconds: about how often to commit finished videos.
        gone: paths of files that do not exist any more.
        missing: paths of files that cannot be found now, those that are gone among them.
        found_again: paths of unchanged files that were missing.
        left_out: paths of files that a rule leaves out now.
        prune: forget at the end the places that are gone or left out, and remove the videos that have no
            other.
        forget_seconds: forget places that have been missing for longer; None: none.
    """

    publish: PublishOptions
    publish_seconds: float
    flush_seconds: float
    gone: Sequence[bytes] = ()
    missing: Sequence[bytes] = ()
    found_again: Sequence[bytes] = ()
    left_out: Sequence[bytes] = ()
    prune: bool = False
    forget_seconds: float | None = None


class LibrarySink:
    """A `Sink` that writes a library. It has no thread: it works only when it is called.

    Args:
        writer: the library's writer; only this sink uses it.
        options: when to commit and to publish.
        emit: receives events: files that are done, and snapshots.
        summary: the summary to fill in.
        earlier: the generation that is served, if this one is another: what it has read need not be read
            again.
        excluded: what users keep out.
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
        excluded: FoundExclusions | None = None,
    ) -> None:
        self._writer = writer
        self._options = options
        self._emit = emit
        self._summary = summary
        self._clock = clock
        self._earlier = earlier
        self._excluded = excluded
        #: Segments that were set aside, of unfinished files, by ingest id.
        self._lost: dict[str, list[SegmentLost]] = {}
        #: Numbers of segments and frames of unfinished files, by ingest id.
        self._counts: dict[str, tuple[int, int]] = {}
        #: Videos whose places have changed, so that their names may have.
        self._moved: set[str] = set()
        #: Ids of videos whose results of a stage are not committed yet.
        self._staged: set[str] = set()
        self._last_flush = self._last_publish = clock()
        self._publishing_took = 0.0

    def lost_places(self, video_ids: Set[str]) -> None:
        """Note that videos have lost places before any file is read, because these are excluded."""
        self._moved |= video_ids
        self._summary.removed += len(video_ids - self._writer.videos.keys())

    def mark_missing(self) -> None:
        """Say of places that they are missing, or found again, before any file is read."""
        now = datetime.now(UTC)
        files = self._writer.files
        for path in self._options.missing:
            if path in files and files[path].missing_since is None:
                self._put_file(replace(files[path], missing_since=now))
        for path in self._options.found_again:
            self._put_file(replace(files[path], missing_since=None))
        self._flush()

    def add(self, rows: Sequence[EncodedSegment]) -> None:
        """See `Sink`."""
        good = []
        for row in rows:
            lost = row if isinstance(row, SegmentLost) else lost_if_not_finite(row)
            if lost is not None:
                self._lost.setdefault(lost.ingest_id, []).append(lost)
            elif isinstance(row, SegmentRow):
                segments, frames = self._counts.get(row.ingest_id, (0, 0))
                self._counts[row.ingest_id] = (segments + 1, frames + len(row.thumbnails))
                # Numbers without gaps, where segments before are left out.
                good.append(replace(row, segment_index=segments))
        self._writer.add_segments(good)

    @property
    def tables(self) -> Path:
        """See `Sink`."""
        return self._writer.library.tables

    def add_written(
        self, written: WrittenSegments, counts: Mapping[str, tuple[int, int]], ends: Sequence[FinishedFile]
    ) -> None:
        """See `Sink`. Commits and publishes when it is due."""
        self._writer.add_written(written, counts.keys())
        for ingest_id, (segments, frames) in counts.items():
            before = self._counts.get(ingest_id, (0, 0))
            self._counts[ingest_id] = (before[0] + segments, before[1] + frames)
        for end in ends:
            self._finish(*end)
        self._commit_when_due()

    def finish(self, task: IndexTask, outcome: FileOutcome, texts: FileTexts | None = None) -> None:
        """See `Sink`. Commits and publishes when it is due."""
        self._finish(task, outcome, texts)
        self._commit_when_due()

    def _finish(self, task: IndexTask, outcome: FileOutcome, texts: FileTexts | None) -> None:
        if texts is not None:
            self._summary.text_problems += texts.problems
        if not isinstance(outcome, FileUnreached) and self._is_excluded(task, outcome.sha256):
            self._finish_excluded(task)
        elif isinstance(outcome, FileKnown):
            self._finish_known(task, outcome, texts)
        elif isinstance(outcome, FileUnreached):
            self._finish_unreached(task, outcome)
        else:
            self._finish_decoded(task, outcome, texts)

    def close(self, *, interrupted: bool) -> None:
        """See `Sink`. Prunes, unless interrupted, and publishes."""
        self._flush()
        self._forget(interrupted=interrupted)
        self._name_moved()
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

    def add_facts(self, video_id: str, facts: VideoFacts | None, path: Path, mtime_ns: int) -> None:
        """Add what the header of a video that was indexed before says; None: it cannot be read."""
        self._writer.finish(with_facts(self._writer.videos[video_id], facts, path, mtime_ns))
        self._commit_when_due()

    def close_stages(self) -> None:
        """Commit and publish what stages have found."""
        self._flush()
        self._publish(last=True)

    def _name_all(self) -> None:
        """Give their names to videos whose texts have not been read: their media may be away."""
        for row in list(self._writer.videos.values()):
            if row.verdict in SEARCHABLE and row.texts_ingest_id is None:
                self._writer.finish(*with_lines(row, self._first_path(row.video_id), None))
        self._flush()

    def _name_moved(self) -> None:
        """Give their new names to videos that were renamed; nothing of them is read again."""
        writer = self._writer
        moved = [writer.videos[video_id] for video_id in sorted(self._moved & writer.videos.keys())]
        self._moved.clear()
        named = [row for row in moved if row.verdict in SEARCHABLE and row.texts_ingest_id is not None]
        for start in range(0, len(named), _NAMED_AT_ONCE):
            some = named[start : start + _NAMED_AT_ONCE]
            lines = writer.lines_of_all(some)
            for row in some:
                renamed = with_names(row, self._first_path(row.video_id), lines[row.video_id])
                if renamed is not None:
                    writer.finish(*renamed)
            self._flush()

    def _first_path(self, video_id: str) -> bytes:
        return self._writer.places(video_id)[0].path

    def _put_file(self, file: FileRow) -> None:
        self._moved.add(file.video_id)
        self._writer.put_file(file)

    def _found(self, task: IndexTask, video_id: str, mtime_ns: int) -> None:
        """Note that a video was found at a path. Another one that was there before is there no more."""
        path = os.fsencode(task.path)
        before = self._writer.files.get(path)
        if before is not None and before.video_id == video_id:
            file = replace(before, mtime_ns=mtime_ns, missing_since=None)
            if file == before:
                return
        else:
            now = datetime.now(UTC)
            file = FileRow(path, video_id, mtime_ns, now)
            for place in self._writer.places(video_id):
                # Below other folders than those of this run, too: it may have been moved from there.
                if place.missing_since is None and no_longer_exists(media_path(place.path)):
                    self._put_file(replace(place, missing_since=now))
        self._put_file(file)

    def _finish_decoded(self, task: IndexTask, outcome: FileVerdict, texts: FileTexts | None) -> None:
        segments, frames = self._counts.pop(task.ingest_id, (0, 0))
        verdict, reason = outcome.verdict, outcome.reason
        lost = self._lost.pop(task.ingest_id, [])
        if verdict in SEARCHABLE and lost:
            verdict = "partial" if segments else "unsupported"
            reason = "; ".join(filter(None, [reason, _describe(lost)]))
        elif verdict in SEARCHABLE and segments == 0:
            verdict, reason = "corrupt", reason or "no frame could be decoded"
        video_id = video_id_of(outcome.sha256, os.fsencode(task.path), outcome.bytes)
        known = self._writer.videos.get(video_id)
        if known is not None and known.verdict in SEARCHABLE and known.bytes == outcome.bytes:
            # A copy that was decoded at the same time.
            self._writer.discard(task.ingest_id)
            self._finish_known(task, FileKnown(outcome.sha256, outcome.mtime_ns), None)
            return
        if verdict not in SEARCHABLE:
            self._writer.discard(task.ingest_id)
            segments = frames = 0
        info = outcome.info
        row = VideoRow(
            video_id=video_id,
            ingest_id=task.ingest_id,
            sha256=outcome.sha256,
            bytes=outcome.bytes,
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
        row = with_facts(row, None if info is None else info.facts, task.path, outcome.mtime_ns)
        lines: Sequence[LineRow] = ()
        if verdict in SEARCHABLE:
            row, lines = self._with_texts(row, os.fsencode(task.path), texts)
        self._writer.finish(row, lines)
        self._found(task, video_id, outcome.mtime_ns)
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

    def _with_texts(
        self, row: VideoRow, path: bytes, texts: FileTexts | None
    ) -> tuple[VideoRow, Sequence[LineRow]]:
        """The row of a new video, and its lines: those that were read, and those that are carried over."""
        known = None if self._earlier is None or texts is not None else self._earlier.subtitles(row)
        lines: Sequence[LineRow]
        row, lines = with_lines(row, path, texts, () if known is None else known[1])
        if known is not None:
            row = replace(row, text_sources=known[0])
        staged = row
        if self._earlier is not None:
            staged, lines = self._earlier.with_stages(row, lines)
        self._summary.carried += known is not None or staged != row
        return staged, lines

    def _finish_known(self, task: IndexTask, outcome: FileKnown, texts: FileTexts | None) -> None:
        video_id = content_id(outcome.sha256)
        row = self._writer.videos.get(video_id)
        if row is None:
            # It was decoded in this run, but is not in the library.
            self._finish_unreached(task, FileUnreached("is not read: try again"))
            return
        self._found(task, video_id, outcome.mtime_ns)
        if texts is not None and texts.sources is not None and row.verdict in SEARCHABLE:
            kept = self._writer.lines_of(row, STAGE_KINDS)
            changed, lines = with_lines(row, self._first_path(video_id), texts, kept)
            self._writer.finish(changed, lines)
            self._summary.lines += _count_spoken(lines)
        self._summary.unchanged += 1
        self._summary.recognised += video_id != task.video_id
        self._summary.failed_before += row.verdict not in SEARCHABLE
        self._emit(FileDone(task.path, None, None, row.duration_seconds, row.num_segments))

    def _finish_unreached(self, task: IndexTask, outcome: FileUnreached) -> None:
        """Forget what was read of it: nothing that the library has of the file changes."""
        self._drop(task)
        row = None if task.video_id is None else self._writer.videos.get(task.video_id)
        self._summary.not_reached.append((task.path, outcome.reason))
        self._summary.not_reached_searchable += row is not None and row.verdict in SEARCHABLE
        self._emit(FileNotReached(task.path, outcome.reason))

    def _is_excluded(self, task: IndexTask, sha256: str) -> bool:
        return self._excluded is not None and self._excluded.is_excluded(task.path, sha256)

    def _finish_excluded(self, task: IndexTask) -> None:
        """Forget what was read of it, and the place of another video that was there before."""
        self._drop(task)
        path = os.fsencode(task.path)
        before = self._writer.files.get(path)
        if before is not None:
            self._writer.forget_file(path)
            self._flush()
            self.lost_places({before.video_id})
        self._summary.passed_over[EXCLUDED] += 1
        self._emit(FileDone(task.path, None, None, 0.0, 0))

    def _drop(self, task: IndexTask) -> None:
        """Forget what was read of a file."""
        self._counts.pop(task.ingest_id, None)
        self._lost.pop(task.ingest_id, None)
        self._writer.discard(task.ingest_id)

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
        with span("commit"):
            self._writer.flush()
        self._staged.clear()

    def _forget(self, *, interrupted: bool) -> None:
        """Forget places that are gone: of videos that are elsewhere now, or where that is asked for.

        A video without any place is removed.
        """
        writer, options = self._writer, self._options
        gone = [
            path
            for path in options.gone
            if path in writer.files
            and writer.files[path].missing_since is not None
            and _is_still_gone(media_path(path))
        ]
        lost = {writer.files[path].video_id for path in gone if self._is_lost(writer.files[path].video_id)}
        forgotten = {path for path in gone if writer.files[path].video_id not in lost}
        self._summary.moved = len(forgotten)
        left_out = {path for path in options.left_out if path in writer.files}
        if options.prune and not interrupted:
            forgotten.update(gone, left_out)
        else:
            self._summary.left_out = len(left_out)
        if options.forget_seconds is not None and not interrupted:
            before = datetime.now(UTC) - timedelta(seconds=options.forget_seconds)
            forgotten |= {
                path
                for path, file in writer.files.items()
                if file.missing_since is not None and file.missing_since <= before and not _is_there(path)
            }
        owners = {writer.files[path].video_id for path in forgotten}
        for path in forgotten:
            writer.forget_file(path)
        self._moved |= owners
        self._flush()
        self._summary.removed += sum(video_id not in writer.videos for video_id in owners)
        self._summary.vanished = sum(video_id in writer.videos for video_id in lost)

    def _is_lost(self, video_id: str) -> bool:
        """Whether a video is missing in all its places."""
        return all(file.missing_since is not None for file in self._writer.places(video_id))

    def _report_set_aside(self) -> None:
        """Name the videos of earlier runs that publishing has set aside."""
        for row in self._writer.set_aside:
            path = media_path(self._first_path(row.video_id))
            self._summary.failures.append(Failure(path, "unsupported", row.reason or ""))
            self._emit(Note(f"{displayable(path)} is set aside: {row.reason}"))
        self._writer.set_aside = []

    def _publish(self, *, last: bool) -> None:
        options, summary = self._options.publish, self._summary
        library = self._writer.library
        manifest = base_manifest(library.path, library.generation)
        if manifest is None or needs_publishing(self._writer, manifest, options):
            with span("publish") as publishing:
                manifest = publish(self._writer, options, last=last)
                publishing.set("reelfind.snapshot", manifest.number)
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


def _is_still_gone(path: Path) -> bool:
    """Whether a file that was gone when the run began is: a share that was away then may be back."""
    return isinstance(path, RemotePath) or no_longer_exists(path)


def _is_there(path: bytes) -> bool:
    """Whether a file can be found at a path now."""
    try:
        return media_path(path).is_file()
    except OSError:
        # It cannot be told: what may be there is not forgotten.
        return True


def _count_spoken(lines: Sequence[LineRow]) -> int:
    return sum(line.kind == "speech" for line in lines)


def _describe(lost: Sequence[SegmentLost]) -> str:
    """A verdict's reason: how many segments are missing, where the first one is, and why."""
    first = lost[0]
    number = "a segment is" if len(lost) == 1 else f"{len(lost)} segments are"
    return f"{number} left out, from {first.start_seconds:.1f} s on: {first.reason}"
