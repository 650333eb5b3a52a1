"""Writes a library: takes rows, commits them, and removes what a killed run left.

All rows of one video have the same new `ingest_id`. Segments and frames are committed first, then the row of
`videos`: rows whose `ingest_id` is in no row of `videos` do not count, and the next run removes them. Its
places follow, in `files`. A video without a place, and a place without a video, do not count either.
Segments of a video that is still being read are held back, those of a long video in data files that no
version of a table names yet. So every committed version holds whole videos only.

Lines of text have an `ingest_id` of their own, which the row of the video names: they are replaced alone when
a subtitle file changes, or when a stage has read the video. Lines that no row names are removed; a video that
lacks some of its lines loses them all, and they are read again.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import lance
import pyarrow as pa
import pyarrow.compute as pc
from lance.fragment import FragmentMetadata, write_fragments

from indexer.library.compaction import fragment_rows, join_fragments, plan_compaction
from indexer.library.errors import MIGRATE_REMEDY, LibraryError, storage_errors
from indexer.library.facts import storable
from indexer.library.folder import Library
from indexer.library.fragments import WrittenSegments
from indexer.library.lance_tables import append_once, steadily
from indexer.library.manifest import GENERATIONS, SNAPSHOTS, readable_manifests
from indexer.library.schema import (
    ADDED_TABLES,
    PATH_COLUMNS,
    TABLES,
    FileRow,
    LineKind,
    LineRow,
    SegmentRow,
    VideoRow,
    files_table,
    frames_table,
    segments_table,
    texts_table,
    videos_table,
)
from indexer.library.storage.registry import storage_of
from indexer.library.stored import stored_files, stored_lines, stored_lines_of_all, stored_videos
from indexer.library.tables import (
    create_table,
    not_finite_ingests,
    open_table,
    table_exists,
    table_path,
    version_files,
)
from indexer.library.vectors.registry import drop_vectors
from indexer.library.words import index_words
from model.runtime.faults import checkpoint

#: Segments of a video, in number or in memory, above which they are written to disk while it is being read.
_SPILL_SEGMENTS = 32
_SPILL_BYTES = 16 << 20
#: Fragments smaller than this are joined, to fragments of at most this size.
_JOINED_BYTES = 256 << 20
_JOINED_ROWS = {"videos": 65536, "files": 1 << 20, "segments": 16384, "frames": 65536, "texts": 1 << 20}
#: About the memory of a line.
_LINE_BYTES = 512
#: Rows copied at once while fragments are joined.
_COPIED_ROWS = 1024
_COPIED_BYTES = 16 << 20
#: The small columns that identify a row.
_KEYS = {
    "videos": ["video_id", "ingest_id"],
    "files": ["path", "video_id"],
    "segments": ["ingest_id", "segment_index", "num_frames"],
    "frames": ["ingest_id", "segment_index", "frame_index"],
    "texts": ["ingest_id"],
}
_KEY_ROWS = 1 << 18


@dataclass
class _Pending:
    """The segments so far of a video that is being read: rows, and fragments already on disk."""

    rows: list[SegmentRow] = field(default_factory=list)
    segments: list[FragmentMetadata] = field(default_factory=list)
    frames: list[FragmentMetadata] = field(default_factory=list)
    lines: Sequence[LineRow] = ()


class LibraryWriter:
    """Adds, replaces and removes videos and their places. One thread uses it, inside `Library.writing`.

    Attributes:
        videos: the row of every video, by its id, those that are not committed yet among them.
        files: the row of every place, by its path; as `videos`.
        set_aside: new rows of videos whose segments `set_aside_not_finite` has removed.
    """

    def __init__(self, library: Library) -> None:
        self._open(library)
        if not self._is_published():
            self._recover()
        self.videos = stored_videos(library.tables, self.datasets["videos"])
        self.files = stored_files(library.tables, self.datasets["files"])
        self._places = _by_video(self.files.values())
        self._recover_places()
        self._recover_lines()

    @classmethod
    def without_recovery(cls, library: Library) -> "LibraryWriter":
        """A writer for tables that are being repaired: it reads none of their rows, not even `videos`."""
        writer = cls.__new__(cls)
        writer._open(library)
        writer.videos, writer.files, writer._places = {}, {}, {}
        return writer

    def _open(self, library: Library) -> None:
        self.library = library
        self.layout = library.layout
        self._storage = storage_of(library.path)
        if set(PATH_COLUMNS) <= set(open_table(library.tables, "videos").schema.names):
            raise LibraryError(f"the library at {library.path} is of an earlier version: {MIGRATE_REMEDY}")
        for name in sorted(ADDED_TABLES):
            if not table_exists(library.tables, name):
                create_table(library.tables, name, library.layout)
        self.datasets = {name: open_table(library.tables, name) for name in TABLES}
        self._durable = {f for name in TABLES for f in self._files(name)}
        self._spill_at = max(1, min(_SPILL_SEGMENTS, _SPILL_BYTES // self.layout.segment_bytes))
        self._pending: dict[str, _Pending] = {}
        self._finished: list[tuple[VideoRow, _Pending]] = []
        #: Places to commit, None for those to remove, by their paths.
        self._changed_files: dict[bytes, FileRow | None] = {}
        #: The rows that `_finished` replaces, as they are committed.
        self._replaced: dict[str, VideoRow | None] = {}
        #: Segments of several videos that are on disk, which the next commit takes in, and their ingests.
        self._written: list[WrittenSegments] = []
        self._written_ingests: set[str] = set()
        #: Ingests among them that are not to count.
        self._dropped: list[str] = []
        #: Videos that have lost their last place.
        self._homeless: set[str] = set()
        _remove_leftovers(library.path)
        self._add_columns()
        self.set_aside: list[VideoRow] = []

    def add_segments(self, rows: Sequence[SegmentRow]) -> None:
        """Hold segments of videos, in time order, until `finish` or `discard` is called."""
        for row in rows:
            pending = self._pending.setdefault(row.ingest_id, _Pending())
            pending.rows.append(row)
            if len(pending.rows) >= self._spill_at:
                self._spill(pending)

    def add_written(self, written: WrittenSegments, ingests: Collection[str]) -> None:
        """Take in segments that another process has written.

        Args:
            written: the segments. Those of each video follow those of it that came before.
            ingests: the videos that they belong to. Those of one video are held, as by `add_segments`. Those
                of several are part of the next commit: finish or discard all of these videos before it.
        """
        earlier = [self._pending[ingest] for ingest in ingests if ingest in self._pending]
        for pending in earlier:
            if pending.rows:
                # They come first.
                self._spill(pending)
        if len(ingests) == 1:
            (ingest_id,) = ingests
            pending = self._pending.setdefault(ingest_id, _Pending())
            pending.segments += written.segments
            pending.frames += written.frames
        else:
            self._written.append(written)
            self._written_ingests.update(ingests)

    def finish(self, video: VideoRow, lines: Sequence[LineRow] = ()) -> None:
        """Include a video and its segments in the next commit.

        Args:
            video: its row. With the `ingest_id` of the row before, its segments stay as they are; with the
                `texts_ingest_id` of the row before, so do its lines.
            lines: new lines, where the `texts_ingest_id` is new.
        """
        pending = self._pending.pop(video.ingest_id, _Pending())
        self._written_ingests.discard(video.ingest_id)
        pending.lines = lines
        row = storable(video)
        if row.video_id in self._replaced:
            # A second time before the next commit.
            self.flush()
        self._replaced[row.video_id] = self.videos.get(row.video_id)
        self._finished.append((row, pending))
        self.videos[row.video_id] = row

    def put_file(self, file: FileRow) -> None:
        """Include a place of a video in the next commit. A video that was there before loses this place."""
        self._set_file(file.path, file)

    def forget_file(self, path: bytes) -> None:
        """Leave a place out from the next commit on. A video without any place is removed by it."""
        self._set_file(path, None)

    def _set_file(self, path: bytes, file: FileRow | None) -> None:
        before = self.files.pop(path, None)
        if before is not None:
            self._places[before.video_id].pop(path)
            self._homeless.add(before.video_id)
        if file is not None:
            self.files[path] = file
            self._places.setdefault(file.video_id, {})[path] = file
        self._changed_files[path] = file

    def places(self, video_id: str) -> list[FileRow]:
        """The places of a video, the first one first; see `FileRow.rank`."""
        return sorted(self._places.get(video_id, {}).values(), key=lambda file: file.rank)

    def lines_of(self, video: VideoRow, kinds: Collection[LineKind]) -> list[LineRow]:
        """The committed lines of a video that are of some kinds, as they were written.

        Args:
            video: its row, which names the lines.
            kinds: the kinds.

        Raises:
            LibraryError: the table cannot be read, or one of the lines is damaged.
        """
        if video.video_id in self._replaced:
            # Its lines are not committed yet.
            self.flush()
        return stored_lines(self.library.tables, self.datasets["texts"], video, kinds)

    def lines_of_all(self, videos: Sequence[VideoRow]) -> dict[str, list[LineRow]]:
        """All committed lines of some videos, by the ids of the videos, read together; see `lines_of`."""
        if any(video.video_id in self._replaced for video in videos):
            self.flush()
        return stored_lines_of_all(self.library.tables, self.datasets["texts"], videos)

    def discard(self, ingest_id: str) -> None:
        """Forget the segments of a video that could not be read to its end."""
        self._pending.pop(ingest_id, None)
        if ingest_id in self._written_ingests:
            self._written_ingests.remove(ingest_id)
            self._dropped.append(ingest_id)

    @property
    def uncommitted_segments(self) -> int:
        """Segments of finished videos that are not committed yet."""
        return sum(video.num_segments for video, _ in self._finished)

    @property
    def uncommitted_bytes(self) -> int:
        """About how much memory these segments take."""
        segments = sum(len(pending.rows) for _, pending in self._finished) * self.layout.segment_bytes
        return segments + sum(len(pending.lines) for _, pending in self._finished) * _LINE_BYTES

    def flush(self) -> None:
        """Commit the finished videos.

        Raises:
            LibraryError: the disk is full, or a table cannot be written.
        """
        finished, self._finished = self._finished, []
        replaced_rows, self._replaced = self._replaced, {}
        written, self._written = self._written, []
        dropped, self._dropped = self._dropped, []
        if not (finished or self._changed_files or written or dropped):
            return
        rows = [row for _, pending in finished for row in pending.rows]
        replaced = [(old, new) for new, _ in finished if (old := replaced_rows[new.video_id]) is not None]
        # Use the same order in both tables: a segment's position gives the rows of its frames.
        on_disk: list[_Pending | WrittenSegments] = [*(pending for _, pending in finished), *written]
        frames = [fragment for each in on_disk for fragment in each.frames]
        segments = [fragment for each in on_disk for fragment in each.segments]
        if rows:
            frames += self._write("frames", frames_table(self.layout, rows))
            segments += self._write("segments", segments_table(self.layout, rows))
        self._append("frames", frames)
        self._append("segments", segments)
        self._delete_ingests(dropped)
        lines = [(video, pending.lines) for video, pending in finished if pending.lines]
        if lines:
            self._append("texts", self._write("texts", texts_table(self.layout, lines)))
        if finished:
            self._upsert([video for video, _ in finished])
        self._commit_files()
        self._delete_ingests([old.ingest_id for old, new in replaced if old.ingest_id != new.ingest_id])
        self._delete_lines(old for old, new in replaced if old.texts_ingest_id != new.texts_ingest_id)
        homeless, self._homeless = self._homeless, set()
        self._remove(sorted(each for each in homeless if not self._places.get(each)))

    def _commit_files(self) -> None:
        changed, self._changed_files = self._changed_files, {}
        rows = [file for file in changed.values() if file is not None]
        if rows:
            self._merge("files", "path", files_table(self.layout, rows))
        for chunk in _chunks([path.hex() for path, file in changed.items() if file is None]):
            self._delete("files", "path", [f"X'{path}'" for path in chunk])

    def _remove(self, video_ids: Sequence[str]) -> None:
        """Remove videos with their segments, frames and lines."""
        rows = [self.videos.pop(video_id) for video_id in video_ids]
        for video_id in video_ids:
            self._places.pop(video_id, None)
        for chunk in _chunks(video_ids):
            self._delete("videos", "video_id", _quoted(chunk))
        self._delete_ingests([row.ingest_id for row in rows])
        self._delete_lines(rows)

    def set_aside_not_finite(self) -> None:
        """Remove the segments of videos that have an embedding with NaN or infinity; their rows say so.

        One such vector would keep every later snapshot from being published.
        """
        found = not_finite_ingests(self.datasets["segments"], table_path(self.library.tables, "segments"))
        before = [row for row in self.videos.values() if row.ingest_id in found]
        rows = [
            replace(
                _without_lines(row),
                verdict="unsupported",
                reason=found[row.ingest_id],
                num_segments=0,
                num_frames=0,
            )
            for row in before
        ]
        self._delete_ingests(sorted(found))
        if rows:
            self._upsert(rows)
            self._delete_lines(before)
        self.set_aside += rows

    def compact(self) -> None:
        """Join small fragments and drop deleted rows if there are many. Rows keep their order."""
        for name in TABLES:
            dataset = self.datasets[name]
            joined, batch = _JOINED_ROWS[name], _COPIED_ROWS
            if name == "frames":
                joined = min(joined, _JOINED_BYTES // self.layout.frame_bytes)
                batch = min(batch, max(1, _COPIED_BYTES // self.layout.frame_bytes))
            plan = plan_compaction(fragment_rows(dataset), joined)
            if plan is None:
                continue
            before, keys = dataset.version, _keys(name, dataset)
            checkpoint(f"compact.{name}")
            with storage_errors(table_path(self.library.tables, name)):
                self._storage.check_writing()
                join_fragments(dataset, plan, batch)
                dataset = open_table(self.library.tables, name)
                if not _keys(name, dataset).equals(keys):
                    # In another order, segments would show the frames of others.
                    dataset = dataset.checkout_version(before)
                    dataset.restore()  # type: ignore[no-untyped-call]
            checkpoint(f"compacted.{name}")
            self._committed(name, dataset)

    def index_words(self, *, anew: bool = False) -> None:
        """Bring all lines into the index of words, in which a search finds them.

        Args:
            anew: make the index anew, since a file of it is damaged.

        Raises:
            LibraryError: the table cannot be read, or the disk is full.
        """
        dataset = self.datasets["texts"]
        checkpoint("index.texts")
        with storage_errors(table_path(self.library.tables, "texts")):
            self._storage.check_writing()
            changed = index_words(dataset, anew=anew)
        checkpoint("indexed.texts")
        if changed:
            self._committed("texts", open_table(self.library.tables, "texts"))

    def _spill(self, pending: _Pending) -> None:
        pending.frames += self._write("frames", frames_table(self.layout, pending.rows))
        pending.segments += self._write("segments", segments_table(self.layout, pending.rows))
        pending.rows = []

    def _write(self, name: str, table: pa.Table) -> list[FragmentMetadata]:
        checkpoint(f"write.{name}")
        with storage_errors(table_path(self.library.tables, name)):
            fragments: list[FragmentMetadata] = write_fragments(table, self.datasets[name], mode="append")
        return fragments

    def _append(self, name: str, fragments: list[FragmentMetadata]) -> None:
        if not fragments:
            return
        dataset = self.datasets[name]
        checkpoint(f"append.{name}")
        with storage_errors(table_path(self.library.tables, name)):
            self._storage.check_writing()
            dataset = append_once(table_path(self.library.tables, name), dataset, fragments)
        checkpoint(f"appended.{name}")
        self._committed(name, dataset)

    def _upsert(self, videos: list[VideoRow]) -> None:
        self._merge("videos", "video_id", videos_table(self.layout, videos))
        self.videos.update((video.video_id, video) for video in videos)

    def _merge(self, name: str, key: str, rows: pa.Table) -> None:
        """Replace the rows with the same keys, and add the others."""
        checkpoint(f"upsert.{name}")
        with storage_errors(table_path(self.library.tables, name)):
            self._storage.check_writing()

            def upsert() -> None:
                latest = open_table(self.library.tables, name)
                merge = latest.merge_insert(key).when_matched_update_all().when_not_matched_insert_all()
                merge.execute(rows)

            steadily(table_path(self.library.tables, name), upsert)
        checkpoint(f"upserted.{name}")
        self._committed(name, open_table(self.library.tables, name))

    def _delete_lines(self, videos: Iterable[VideoRow]) -> None:
        """Remove the lines that earlier rows of videos name."""
        ingests = [row.texts_ingest_id for row in videos if row.texts_ingest_id is not None]
        for chunk in _chunks(ingests):
            self._delete("texts", "ingest_id", _quoted(chunk))

    def _delete_ingests(self, ingests: Sequence[str]) -> None:
        for name in ("segments", "frames"):
            for chunk in _chunks(ingests):
                self._delete(name, "ingest_id", _quoted(chunk))

    def _delete(self, name: str, column: str, literals: Sequence[str]) -> None:
        """Remove the rows whose column is one of some values, which are written as SQL literals."""
        listed = ", ".join(literals)
        checkpoint(f"delete.{name}")
        with storage_errors(table_path(self.library.tables, name)):
            self._storage.check_writing()
            path, dataset = table_path(self.library.tables, name), self.datasets[name]
            steadily(path, lambda: dataset.delete(f"{column} IN ({listed})"))
        checkpoint(f"deleted.{name}")
        self._committed(name, open_table(self.library.tables, name))

    def _committed(self, name: str, dataset: lance.LanceDataset) -> None:
        """Flush a new version's files to disk, since Lance does not."""
        self.datasets[name] = dataset
        with storage_errors(table_path(self.library.tables, name)):
            new = self._files(name) - self._durable
            self._storage.flush(new, table_path(self.library.tables, name))
        self._durable |= new

    def _files(self, name: str) -> set[Path]:
        return set(version_files(self.library.tables, name, self.datasets[name]))

    def _add_columns(self) -> None:
        """Add the columns that libraries made before lack, empty: no data file is written again."""
        for name in TABLES:
            present = self.datasets[name].schema.names
            missing = [f for f in self.layout.schema(name) if f.nullable and f.name not in present]
            if missing:
                with storage_errors(table_path(self.library.tables, name)):
                    self.datasets[name].add_columns(missing)
                self._committed(name, open_table(self.library.tables, name))

    def _is_published(self) -> bool:
        """Whether a snapshot has the tables as they are now, so that no run was killed since.

        It saves reading which video each row is of.
        """
        versions = {name: dataset.version for name, dataset in self.datasets.items()}
        return any(
            manifest.generation == self.library.generation and manifest.tables == versions
            for manifest in readable_manifests(self.library.path)
        )

    def _recover(self) -> None:
        """Remove what a killed run left: rows without a video, and videos that lack some of their rows."""
        counts = {}
        for name in ("segments", "frames"):
            with storage_errors(table_path(self.library.tables, name)):
                counts[name] = _counts(self.datasets[name])
        with storage_errors(table_path(self.library.tables, "videos")):
            columns = ["ingest_id", "num_segments", "num_frames"]
            videos = self.datasets["videos"].to_table(columns=columns)
        broken, whole = [], set()
        for row in videos.to_pylist():
            ingest = row["ingest_id"]
            present = (counts["segments"].get(ingest, 0), counts["frames"].get(ingest, 0))
            if present == (row["num_segments"], row["num_frames"]):
                whole.add(ingest)
            else:
                broken.append(ingest)
        for chunk in _chunks(broken):
            self._delete("videos", "ingest_id", _quoted(chunk))
        for name in ("segments", "frames"):
            for chunk in _chunks(sorted(set(counts[name]) - whole)):
                self._delete(name, "ingest_id", _quoted(chunk))

    def _recover_places(self) -> None:
        """Remove videos without a place, and places without a video."""
        self._remove(sorted(self.videos.keys() - self._places.keys()))
        lonely = sorted(self._places.keys() - self.videos.keys())
        for chunk in _chunks(lonely):
            self._delete("files", "video_id", _quoted(chunk))
        for video_id in lonely:
            for path in self._places.pop(video_id):
                del self.files[path]

    def _recover_lines(self) -> None:
        """Remove lines that no video names, and those of videos that lack some: they are read again."""
        with storage_errors(table_path(self.library.tables, "texts")):
            counts = _counts(self.datasets["texts"])
        named = {row.texts_ingest_id: row for row in self.videos.values() if row.texts_ingest_id}
        broken = [row for ingest, row in named.items() if counts.get(ingest, 0) != row.num_lines]
        if broken:
            self._upsert([_without_lines(row) for row in broken])
        whole = named.keys() - {row.texts_ingest_id for row in broken}
        for chunk in _chunks(sorted(counts.keys() - whole)):
            self._delete("texts", "ingest_id", _quoted(chunk))


def _without_lines(video: VideoRow) -> VideoRow:
    """The video's row as if no text had been read, by stages either: their lines are lost with the others."""
    return replace(
        video,
        texts_ingest_id=None,
        num_lines=None,
        text_sources=None,
        speech_source=None,
        screen_source=None,
    )


def _keys(name: str, dataset: lance.LanceDataset) -> pa.Table:
    return dataset.to_table(columns=_KEYS[name]).combine_chunks()


def _counts(dataset: lance.LanceDataset) -> dict[str, int]:
    """The number of rows of each ingest."""
    counted: Counter[str] = Counter()
    for batch in dataset.to_batches(columns=["ingest_id"], batch_size=_KEY_ROWS):
        values = pc.value_counts(batch["ingest_id"])
        counted.update(dict(zip(values.field(0).to_pylist(), values.field(1).to_pylist(), strict=True)))
    return counted


def _by_video(files: Iterable[FileRow]) -> dict[str, dict[bytes, FileRow]]:
    """The places of each video, by their paths."""
    found: dict[str, dict[bytes, FileRow]] = {}
    for file in files:
        found.setdefault(file.video_id, {})[file.path] = file
    return found


def _quoted(ids: Sequence[str]) -> list[str]:
    """Ids as SQL literals: they are hexadecimal, so there is nothing to escape."""
    return [f"'{each}'" for each in ids]


def _chunks(values: Sequence[str], size: int = 500) -> list[Sequence[str]]:
    return [values[i : i + size] for i in range(0, len(values), size)]


def _remove_leftovers(library: Path) -> None:
    """Remove half-written snapshots, and what else a killed run left. The lock must be held."""
    snapshots, generations = library / SNAPSHOTS, library / GENERATIONS
    storage = storage_of(library)
    try:
        snapshots.mkdir(exist_ok=True)
        for folder in storage.leftovers(snapshots):
            drop_vectors(folder)
            storage.remove_folder(folder)
        for name in storage.names(generations):
            if name.startswith(".") and name.endswith(".removed"):
                storage.remove_folder(generations / name)
        for path in library.glob(".*.new"):
            path.unlink()
    except OSError as error:
        raise LibraryError(f"{error.filename} cannot be removed: {error.strerror}") from error
