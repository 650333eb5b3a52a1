"""The videos of a snapshot, in memory, in the order of their paths."""

import os
from datetime import UTC
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from indexer.library.checksums import CHECKSUMS
from indexer.library.records import Verdict, VideoRecord, displayable
from indexer.library.schema import CONTAINER_START, CUTS, STAGE_COLUMNS, STAGE_FAILED, TEXT_COLUMNS

_HIDDEN_COLUMNS = ("ingest_id", "num_frames", "path", CHECKSUMS, CUTS, *TEXT_COLUMNS, *STAGE_COLUMNS)


class VideoLabel(NamedTuple):
    """What a hit says of its video; the values are those of its record."""

    path: str
    title: str | None
    container_start_seconds: float | None


class VideoCatalog:
    """All rows of `videos`, failures included. A video's position is its row in this list."""

    def __init__(self, table: pa.Table) -> None:
        if CONTAINER_START not in table.column_names:
            table = table.append_column(CONTAINER_START, pa.nulls(table.num_rows, pa.float64()))
        # Sorted by path: the order stays as videos come and go.
        self._table = table.take(pc.sort_indices(table["path"].combine_chunks())).combine_chunks()
        self._ids: list[str] = self._table["video_id"].to_pylist()
        self._row_of_id = {video_id: row for row, video_id in enumerate(self._ids)}
        self._ingests: list[str] = self._table["ingest_id"].to_pylist()
        columns = (self._table[name] for name in ("path", "title", CONTAINER_START))
        self._label_columns = [column.combine_chunks() for column in columns]
        self._cuts = _Cuts(self._table)

    @property
    def hours(self) -> float:
        """Hours of video that a search can find."""
        searchable = self._table.filter(pc.greater(self._table["num_segments"], 0))
        return float(pc.sum(searchable["duration_seconds"]).as_py() or 0.0) / 3600

    def id_at(self, row: int) -> str:
        """The id of the video in a row."""
        return self._ids[row]

    def ingest_at(self, row: int) -> str:
        """The ingest id of the video in a row."""
        return self._ingests[row]

    def row_of(self, video_id: str) -> int | None:
        """The row of a video; None when it is not in the list."""
        return self._row_of_id.get(video_id)

    def rows_of(self, video_ids: pa.Array) -> NDArray[np.int32]:
        """The row of each id, -1 where it is not in the list. Strings [R] → int32 [R]."""
        rows = pc.fill_null(pc.index_in(video_ids, self._table["video_id"].combine_chunks()), -1)
        return rows.to_numpy().astype(np.int32)  # type: ignore[no-any-return]

    def record(self, video_id: str) -> VideoRecord | None:
        """A video's record; None when it is not in the list."""
        row = self.row_of(video_id)
        return None if row is None else _records(self._table.slice(row, 1))[0]

    def label(self, video_id: str) -> VideoLabel | None:
        """What a hit says of a video, much faster than the record; None when it is not in the list."""
        row = self.row_of(video_id)
        if row is None:
            return None
        path, title, container_start = (column[row].as_py() for column in self._label_columns)
        return VideoLabel(displayable(path), title, container_start)

    def cuts_at(self, row: int) -> NDArray[np.float64] | None:
        """When the shots of the video in a row begin, but for the first; None: they are not known."""
        return self._cuts.of(row)

    def page(self, offset: int, limit: int, verdict: Verdict | None) -> list[VideoRecord]:
        """A page of the list, or of the videos with this verdict."""
        return _records(self._with_verdict(verdict).slice(offset, limit))

    def count(self, verdict: Verdict | None) -> int:
        """How many videos there are, or how many with this verdict."""
        return int(self._with_verdict(verdict).num_rows)

    def stage_counts(self) -> dict[str, int]:
        """How many videos each stage has read, without those that it failed on, by its name."""
        counts = {column.removesuffix("_source"): 0 for column in STAGE_COLUMNS}
        for column in set(STAGE_COLUMNS) & set(self._table.column_names):
            failed = pc.starts_with(self._table[column], STAGE_FAILED)
            counts[column.removesuffix("_source")] = pc.sum(pc.invert(failed)).as_py() or 0
        return counts

    def _with_verdict(self, verdict: Verdict | None) -> pa.Table:
        if verdict is None:
            return self._table
        return self._table.filter(pc.equal(self._table["verdict"], verdict))


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


def _records(table: pa.Table) -> list[VideoRecord]:
    records = []
    for row in table.to_pylist():
        columns = {name: value for name, value in row.items() if name not in _HIDDEN_COLUMNS}
        columns["indexed_at"] = columns["indexed_at"].astimezone(UTC)
        records.append(VideoRecord(file=Path(os.fsdecode(row["path"])), **columns))
    return records
