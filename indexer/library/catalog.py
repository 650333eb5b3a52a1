"""The videos of a snapshot and their places, in memory, in the order of their first places."""

import copy
import threading
from datetime import UTC
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from cachetools import LRUCache
from numpy.typing import NDArray

from indexer.library.annotations import NO_ANNOTATION, Annotation
from indexer.library.checksums import CHECKSUMS
from indexer.library.recordings import Recordings
from indexer.library.records import (
    NO_RECORDING,
    FileRecord,
    Recording,
    Verdict,
    VideoRecord,
    displayable,
)
from indexer.library.schema import (
    CONTAINER_START,
    CUTS,
    FACT_COLUMNS,
    STAGE_COLUMNS,
    STAGE_FAILED,
    TEXT_COLUMNS,
)
from model.runtime.remote.path import media_path

# Labels that are kept, some hundred bytes each: reading one from the columns takes longer than a hit.
_MOST_LABELS = 4096
_HIDDEN_COLUMNS = {"ingest_id", "num_frames", CHECKSUMS, CUTS, *TEXT_COLUMNS, *STAGE_COLUMNS, *FACT_COLUMNS}


class VideoLabel(NamedTuple):
    """What a hit says of its video; the values are those of its record."""

    path: str
    title: str | None
    container_start_seconds: float | None
    missing: bool
    recording: Recording = NO_RECORDING
    annotation: Annotation = NO_ANNOTATION

    @property
    def shown_title(self) -> str | None:
        """The title that users gave it, or else the file's."""
        return self.annotation.title or self.title


class VideoCatalog:
    """All rows of `videos`, failures included. A video's position is its row in this list."""

    def __init__(self, videos: pa.Table, files: pa.Table) -> None:
        """ValueError when a video has no place."""
        if CONTAINER_START not in videos.column_names:
            videos = videos.append_column(CONTAINER_START, pa.nulls(videos.num_rows, pa.float64()))
        places = _Places(videos["video_id"], files)
        # Sorted by path: the order stays as videos come and go.
        order = pc.sort_indices(places.first_paths())
        self._table = videos.take(order).combine_chunks()
        self._places = places.in_order(order.to_numpy())
        self._ids: list[str] = self._table["video_id"].to_pylist()
        self._row_of_id = {video_id: row for row, video_id in enumerate(self._ids)}
        self._ingests: list[str] = self._table["ingest_id"].to_pylist()
        columns = (self._table[name] for name in ("title", CONTAINER_START))
        self._label_columns = [column.combine_chunks() for column in columns]
        self._cuts = _Cuts(self._table)
        self._recordings = Recordings(self._table)
        self._labels: LRUCache[int, VideoLabel] = LRUCache(_MOST_LABELS)
        self._labels_lock = threading.Lock()
        #: Which videos are not hidden, bool [videos]; None: all.
        self._shown: NDArray[np.bool_] | None = None

    def showing(self, places: NDArray[np.bool_]) -> "VideoCatalog":
        """The same list as if there were no other places than these: a video without one is hidden.

        The rows of videos stay.

        Args:
            places: which of `paths` there are, bool [P].
        """
        shown = copy.copy(self)
        # Derived of all places.
        shown.__dict__.pop("shown_paths", None)
        shown._labels = LRUCache(_MOST_LABELS)
        shown._places = self._places.showing(places)
        shown._shown = shown._places.has_any
        return shown

    @property
    def visible(self) -> NDArray[np.bool_]:
        """Which videos are not hidden, bool [videos]."""
        return np.ones(self.num_rows, np.bool_) if self._shown is None else self._shown

    @property
    def paths(self) -> tuple[NDArray[np.int64], pa.Array]:
        """The row of the video of each of their paths, int64 [P], and the paths as stored, binary [P]."""
        return self._places.all()

    @property
    def hours(self) -> float:
        """Hours of video that a search can find."""
        shown = self._table if self._shown is None else self._table.filter(pa.array(self._shown))
        searchable = shown.filter(pc.greater(shown["num_segments"], 0))
        return float(pc.sum(searchable["duration_seconds"]).as_py() or 0.0) / 3600

    @property
    def num_rows(self) -> int:
        """How many videos there are, failures and hidden ones included."""
        return int(self._table.num_rows)

    def column(self, name: str) -> pa.Array | None:
        """The values of a column of `videos`, one a row; None where the library has no such column."""
        return self._table[name].combine_chunks() if name in self._table.column_names else None

    @cached_property
    def shown_paths(self) -> tuple[NDArray[np.int64], pa.Array]:
        """All places: the row of the video of each, int64 [P], and the path as it is shown, strings [P]."""
        owners, paths = self._places.all()
        return owners, pa.array([displayable(path) for path in paths.to_pylist()], pa.string())

    def id_at(self, row: int) -> str:
        """The id of the video in a row."""
        return self._ids[row]

    def ingest_at(self, row: int) -> str:
        """The ingest id of the video in a row."""
        return self._ingests[row]

    def row_of(self, video_id: str) -> int | None:
        """The row of a video; None when it is not in the list, or hidden."""
        row = self._row_of_id.get(video_id)
        return None if row is None or (self._shown is not None and not self._shown[row]) else row

    def rows_of_ingests(self, ingest_ids: pa.Array, column: str = "ingest_id") -> NDArray[np.int32]:
        """The row of the video that names each ingest, -1 where none does. Strings [R] → int32 [R].

        Args:
            ingest_ids: of segments or frames; or of lines, with `column` "texts_ingest_id".
            column: the column of `videos` that names them.
        """
        if column not in self._table.column_names:
            return np.full(len(ingest_ids), -1, np.int32)
        named = self._table[column].combine_chunks()
        rows = pc.fill_null(pc.index_in(ingest_ids, named, skip_nulls=True), -1)
        return rows.to_numpy().astype(np.int32)  # type: ignore[no-any-return]

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Which videos are in none of their places any more, bool [videos]."""
        return self._places.missing

    def record(self, video_id: str) -> VideoRecord | None:
        """A video's record; None when it is not in the list."""
        row = self.row_of(video_id)
        return None if row is None else self.records(np.array([row]))[0]

    def label(self, video_id: str) -> VideoLabel | None:
        """What a hit says of a video, much faster than the record; None when it is not in the list."""
        row = self.row_of(video_id)
        return None if row is None else self._label_at(row)

    def _label_at(self, row: int) -> VideoLabel:
        # A decorator that keeps what a method gives may keep it in the object, and `showing` copies that.
        with self._labels_lock:
            kept = self._labels.get(row)
        if kept is not None:
            return kept
        label = self._read_label(row)
        with self._labels_lock:
            self._labels[row] = label
        return label

    def _read_label(self, row: int) -> VideoLabel:
        title, container_start = (column[row].as_py() for column in self._label_columns)
        path, is_missing = self._places.first(row)
        recording = self._recordings.at(row)
        return VideoLabel(displayable(path), title, container_start, is_missing, recording)

    def cuts_at(self, row: int) -> NDArray[np.float64] | None:
        """When the shots of the video in a row begin, but for the first; None: they are not known."""
        return self._cuts.of(row)

    def records(self, rows: NDArray[np.int64]) -> list[VideoRecord]:
        """The records of the videos in some rows, in this order."""
        records = []
        told = self._table.select([name for name in self._table.column_names if name not in _HIDDEN_COLUMNS])
        for row, columns in zip(rows.tolist(), told.take(rows).to_pylist(), strict=True):
            columns["indexed_at"] = columns["indexed_at"].astimezone(UTC)
            recording = self._recordings.at(row)
            records.append(VideoRecord(files=self._places.of(row), recording=recording, **columns))
        return records

    def page(self, offset: int, limit: int, verdict: Verdict | None) -> list[VideoRecord]:
        """A page of the list, or of the videos with this verdict."""
        return self.records(self._rows_with(verdict)[offset : offset + limit])

    def count(self, verdict: Verdict | None) -> int:
        """How many videos there are, or how many with this verdict."""
        return len(self._rows_with(verdict))

    def stage_counts(self) -> dict[str, int]:
        """How many videos each stage has read, without those that it failed on, by its name."""
        counts = {column.removesuffix("_source"): 0 for column in STAGE_COLUMNS}
        for column in set(STAGE_COLUMNS) & set(self._table.column_names):
            failed = pc.starts_with(self._table[column], STAGE_FAILED)
            counts[column.removesuffix("_source")] = pc.sum(pc.invert(failed)).as_py() or 0
        return counts

    def _rows_with(self, verdict: Verdict | None) -> NDArray[np.int64]:
        wanted = self.visible
        if verdict is not None:
            has_verdict = pc.equal(self._table["verdict"], verdict).combine_chunks()
            wanted = wanted & has_verdict.to_numpy(zero_copy_only=False)
        return np.flatnonzero(wanted)


class _Places:
    """The places of videos: those of one video stand together, its first place first; see `FileRow.rank`."""

    def __init__(self, video_ids: pa.ChunkedArray, files: pa.Table) -> None:
        """`video_ids` are those of all videos. ValueError when one of them has no place."""
        owner = pc.index_in(files["video_id"].combine_chunks(), video_ids.combine_chunks())
        files = files.filter(owner.is_valid())
        owners: NDArray[np.int64] = owner.drop_null().to_numpy().astype(np.int64)
        missing = files["missing_since"].combine_chunks().is_valid().to_numpy(zero_copy_only=False)
        found: NDArray[np.int64] = files["found_at"].combine_chunks().cast(pa.int64()).to_numpy()
        by_path = np.empty(len(owners), np.int64)
        by_path[pc.sort_indices(files["path"].combine_chunks()).to_numpy()] = np.arange(len(owners))
        order = np.lexsort((by_path, found, missing, owners))
        self._files = files.take(order).combine_chunks()
        self._starts = np.searchsorted(owners[order], np.arange(len(video_ids)))
        self._stops = np.searchsorted(owners[order], np.arange(len(video_ids)), side="right")
        if (self._starts == self._stops).any():
            video = video_ids[int(np.argmax(self._starts == self._stops))].as_py()
            raise ValueError(f"video {video} has no file")
        self._missing: NDArray[np.bool_] = missing[order]

    def in_order(self, rows: NDArray[np.int64]) -> "_Places":
        """The same places, with the videos in another order; changes this object."""
        self._starts, self._stops = self._starts[rows], self._stops[rows]
        return self

    def showing(self, places: NDArray[np.bool_]) -> "_Places":
        """Those that are chosen, bool [P] in the order of `all`."""
        kept = np.zeros(self._files.num_rows, np.bool_)
        kept[self._rows()[1]] = places
        before = np.concatenate([[0], np.cumsum(kept)])
        shown = copy.copy(self)
        # Derived of all places.
        shown.__dict__.pop("missing", None)
        shown._starts, shown._stops = before[self._starts], before[self._stops]
        shown._files, shown._missing = (
            self._files.filter(pa.array(kept)).combine_chunks(),
            self._missing[kept],
        )
        return shown

    @property
    def has_any(self) -> NDArray[np.bool_]:
        """Whether each video has a place, bool [videos]."""
        return self._starts < self._stops

    def first_paths(self) -> pa.Array:
        """The first path of each video."""
        return self._files["path"].combine_chunks().take(pa.array(self._starts))

    @cached_property
    def missing(self) -> NDArray[np.bool_]:
        """Whether each video is in none of its places; of one without a place, false."""
        missing = np.zeros(len(self._starts), np.bool_)
        missing[self.has_any] = self._missing[self._starts[self.has_any]]
        return missing

    def first(self, row: int) -> tuple[bytes, bool]:
        """The first path of a video, and whether it is missing there."""
        start = int(self._starts[row])
        path: bytes = self._files["path"][start].as_py()
        return path, bool(self._missing[start])

    def all(self) -> tuple[NDArray[np.int64], pa.Array]:
        """All places: the row of the video of each, rising, int64 [P], and its path, bytes [P]."""
        owners, rows = self._rows()
        return owners, self._files["path"].combine_chunks().take(pa.array(rows))

    def _rows(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The row of the video of each place, rising, and the place's row in `_files`; both int64 [P]."""
        counts = self._stops - self._starts
        owners = np.repeat(np.arange(len(counts)), counts)
        place = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
        return owners, self._starts[owners] + place

    def of(self, row: int) -> tuple[FileRecord, ...]:
        """All places of a video."""
        start, stop = int(self._starts[row]), int(self._stops[row])
        return tuple(
            FileRecord(
                media_path(file["path"]),
                file["mtime_ns"],
                None if file["missing_since"] is None else file["missing_since"].astimezone(UTC),
            )
            for file in self._files.slice(start, stop - start).to_pylist()
        )


class _Cuts:
    """The column of cuts, as arrays: a search reads that of each stretch. ValueError for a wrong type."""

    def __init__(self, table: pa.Table) -> None:
        self._known = np.zeros(table.num_rows, np.bool_)
        if CUTS not in table.column_names:
            return
        kind = table.schema.field(CUTS).type
        if not (pa.types.is_list(kind) and pa.types.is_float64(kind.value_type)):
            raise ValueError(f"{CUTS} is {kind}")
        column = table[CUTS].combine_chunks()
        self._known = column.is_valid().to_numpy(zero_copy_only=False)
        self._offsets: NDArray[np.int32] = column.offsets.to_numpy()
        self._seconds: NDArray[np.float64] = column.values.to_numpy(zero_copy_only=False)

    def of(self, row: int) -> NDArray[np.float64] | None:
        """The cuts of the video in a row; None: they are not known."""
        return self._seconds[self._offsets[row] : self._offsets[row + 1]] if self._known[row] else None
