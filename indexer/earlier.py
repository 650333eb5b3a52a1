"""What the generation that is served has read in videos beside their pictures: another one need not read it.

Lines of subtitles, of speech and of text in pictures, and cuts, have nothing to do with the bundle. They are
true of another generation's video where that has the same content.
"""

import os
from collections.abc import Collection, Sequence
from dataclasses import replace

from indexer.library.errors import LibraryError
from indexer.library.folder import Library
from indexer.library.records import SEARCHABLE
from indexer.library.schema import LINE_KINDS, STAGE_FAILED, LineKind, LineRow, VideoRow
from indexer.library.stored import stored_files, stored_lines, stored_videos
from indexer.library.tables import open_table, table_exists
from indexer.plan import IndexTask
from indexer.scan import FileFacts
from indexer.stages.base import STAGES, StageName, StageResult, source_of
from indexer.stored_lines import KIND_OF, with_stage


class EarlierGeneration:
    """The videos and lines of a generation, whose library's lock is held."""

    def __init__(self, library: Library) -> None:
        """LibraryError when its table of videos cannot be read."""
        self._tables = library.tables
        rows = stored_videos(self._tables, open_table(self._tables, "videos"))
        self._videos = {video_id: row for video_id, row in rows.items() if row.verdict in SEARCHABLE}
        self._files = stored_files(self._tables, open_table(self._tables, "files"))
        self._texts = open_table(self._tables, "texts") if table_exists(self._tables, "texts") else None

    def has_texts(self, task: IndexTask, found: FileFacts) -> bool:
        """Whether the texts that a task would read are those that it has, if the file's content is the same.

        Not of a task that reads nothing but texts: what could be carried over has been.

        Args:
            task: the task.
            found: what the scan knows of its file.
        """
        file = self._files.get(os.fsencode(task.path))
        row = None if file is None else self._videos.get(file.video_id)
        return (
            file is not None
            and row is not None
            and task.kept_mtime_ns is None
            and row.text_sources is not None
            and (row.bytes, file.mtime_ns) == (found.bytes, found.mtime_ns)
            and row.text_sources == task.text_sources
        )

    def subtitles(self, video: VideoRow) -> tuple[str, list[LineRow]] | None:
        """What the subtitles of a video were read from, and their lines; None: they are not known.

        Args:
            video: its row, with the checksum of its content.
        """
        row = self._same(video)
        if row is None or row.text_sources is None:
            return None
        lines = self._lines(row, {"speech"})
        return None if lines is None else (row.text_sources, lines)

    def stages(self, video: VideoRow) -> list[StageName]:
        """The stages that have read the same content, and not this video itself."""
        row = self._same(video)
        return [] if row is None else [s for s in STAGES if _has_read(row, s) and not _has_read(video, s)]

    def with_stages(self, video: VideoRow, lines: Sequence[LineRow]) -> tuple[VideoRow, Sequence[LineRow]]:
        """A video's row and all its lines with what `stages` have found.

        Args:
            video: its row, with the checksum of its content.
            lines: all its lines.
        """
        missing, row = self.stages(video), self._same(video)
        before = self._lines(row, LINE_KINDS) if row is not None and missing else None
        if row is None or before is None:
            return video, lines
        for stage in missing:
            found = tuple(line for line in before if line.kind == KIND_OF[stage])
            result = StageResult(found, tuple(row.cut_seconds or ()) if stage == "shots" else None)
            video, changed = with_stage(video, stage, source_of(row, stage) or "", result, lines)
            lines = changed or lines
        return video, lines

    def _same(self, video: VideoRow) -> VideoRow | None:
        """The row of the same content."""
        return self._videos.get(video.video_id) if video.sha256 else None

    def _lines(self, video: VideoRow, kinds: Collection[LineKind]) -> list[LineRow] | None:
        """The lines of a video; None where they cannot be read or are not all there: they are read again."""
        if self._texts is None:
            return None
        try:
            lines = stored_lines(self._tables, self._texts, video, LINE_KINDS)
        except LibraryError:
            return None
        if len(lines) != (video.num_lines or 0):
            return None
        return [line for line in lines if line.kind in kinds]


def without_texts(task: IndexTask) -> IndexTask:
    """The task without the reading of texts."""
    return replace(task, text_sources=None, subtitles=())


def _has_read(video: VideoRow, stage: StageName) -> bool:
    source = source_of(video, stage)
    return source is not None and not source.startswith(STAGE_FAILED)
