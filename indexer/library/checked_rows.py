"""Reads rows of a table and compares them with their checksums: a damaged row is refused by name."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from indexer.library.catalog import VideoCatalog
from indexer.library.checksums import CHECKSUMS, part_checksum, stored_checksums
from indexer.library.errors import REPAIR_REMEDY, DamagedRowsError, LibraryError, storage_errors
from indexer.library.schema import PART_COLUMNS, fixed_to_numpy
from indexer.library.tables import fragment_files, table_path

#: The key of a row, with which its checksums begin.
RowKey = Callable[[int], tuple[object, ...]]


@dataclass(frozen=True)
class RowNames:
    """The keys of a snapshot's rows, and what error messages call them. For the arrays, see `Snapshot`."""

    videos: VideoCatalog
    video_rows: NDArray[np.int32]
    segment_index: NDArray[np.int32]
    start_seconds: NDArray[np.float64]
    frame_offset: NDArray[np.int64]

    def segment_key(self, row: int) -> tuple[object, ...]:
        """The key of a row of `segments`."""
        return self.videos.ingest_at(int(self.video_rows[row])), self.segment_index[row]

    def frame_key(self, row: int) -> tuple[object, ...]:
        """The key of a row of `frames`."""
        segment, frame = self._place(row)
        return *self.segment_key(segment), frame

    def segment(self, row: int) -> str:
        """What to call a segment."""
        video = self.videos.label(self.videos.id_at(int(self.video_rows[row])))
        path = "an unknown video" if video is None else video.path
        return f"the segment at {self.start_seconds[row]:.1f} s of {path}"

    def frame(self, row: int) -> str:
        """What to call a stored frame."""
        segment, frame = self._place(row)
        return f"stored frame {frame} of {self.segment(segment)}"

    def _place(self, row: int) -> tuple[int, int]:
        segment = int(np.searchsorted(self.frame_offset, row, side="right")) - 1
        return segment, row - int(self.frame_offset[segment])


class CheckedRows:
    """The rows of a table at one version. Many threads may read them at once.

    Rows without checksums, of libraries made before there were any, are returned as they are read, unless
    `distrust` has named their file.
    """

    def __init__(
        self,
        library: Path,
        name: str,
        dataset: lance.LanceDataset,
        key: RowKey,
        describe: Callable[[int], str],
    ) -> None:
        """`key` and `describe` give the key of a row, and what to call it in an error message."""
        self._name, self._dataset = name, dataset
        self._where = table_path(library, name)
        self._library = library
        self._key, self._describe = key, describe
        present = dataset.schema.names
        self._has_checksums = CHECKSUMS in present
        self._columns = {
            part: [column for column in columns if column in present]
            for part, columns in PART_COLUMNS[name].items()
        }
        self._distrusted: list[range] = []

    def distrust(self, files: Iterable[str]) -> None:
        """Refuse the rows without checksums in these files, whose names are relative to the library."""
        damaged = {self._library / name for name in files}
        distrusted, start = [], 0
        for fragment in self._dataset.get_fragments():
            stop = start + fragment.count_rows()
            if damaged & set(fragment_files(self._where, fragment)):
                distrusted.append(range(start, stop))
            start = stop
        self._distrusted = distrusted

    def take(self, rows: NDArray[np.int64], *parts: str) -> list[NDArray[Any]]:
        """The columns of some parts of rows, int64 [K], in any order; rows may repeat.

        Returns:
            An array [K, size] for each column of each part.

        Raises:
            DamagedRowsError: some rows are damaged.
            LibraryError: none can be read.
        """
        # Each row once and ascending: Lance then reads neighbours together and need not sort.
        distinct, inverse = np.unique(rows, return_inverse=True)
        table = self._read(distinct, parts)
        arrays = [fixed_to_numpy(table[name]) for part in parts for name in self._columns[part]]
        return arrays if np.array_equal(distinct, rows) else [array[inverse] for array in arrays]

    def take_bytes(self, row: int, part: str) -> bytes:
        """The one column of a part of one row. Raises as `take`."""
        (name,) = self._columns[part]
        value: bytes = self._read(np.array([row]), (part,))[name][0].as_py()
        return value

    def _read(self, rows: NDArray[np.int64], parts: Sequence[str]) -> pa.Table:
        columns = [name for part in parts for name in self._columns[part]]
        if self._has_checksums:
            columns.append(CHECKSUMS)
        try:
            with storage_errors(self._where):
                table = self._dataset.take(rows.tolist(), columns=columns)
        except LibraryError:
            unreadable = self._unreadable(rows, columns) if len(rows) > 1 else rows
            if len(unreadable) in (0, len(rows)):
                raise
            raise self._damaged(unreadable) from None
        wrong = np.zeros(len(rows), np.bool_)
        for part in parts:
            wrong |= self._wrong(rows, table, part)
        if wrong.any():
            raise self._damaged(rows[wrong])
        return table

    def _wrong(self, rows: NDArray[np.int64], table: pa.Table, part: str) -> NDArray[np.bool_]:
        """Which rows differ from their checksums, or have none in a damaged file."""
        stored: list[int | None] = [None] * len(rows)
        if self._has_checksums:
            stored = stored_checksums(self._name, table[CHECKSUMS], part)
        values = [part_values(table[name]) for name in self._columns[part]]
        return np.array(
            [
                any(row in distrusted for distrusted in self._distrusted)
                if checksum is None
                else checksum != part_checksum(self._key(row), *(value[i] for value in values))
                for i, (row, checksum) in enumerate(zip(rows.tolist(), stored, strict=True))
            ],
            np.bool_,
        )

    def _unreadable(self, rows: NDArray[np.int64], columns: list[str]) -> NDArray[np.int64]:
        """Which of these rows cannot be read, by halves: one damaged page must not refuse all."""
        try:
            with storage_errors(self._where):
                self._dataset.take(rows.tolist(), columns=columns)
        except LibraryError:
            if len(rows) == 1:
                return rows
            half = len(rows) // 2
            return np.concatenate(
                [self._unreadable(rows[:half], columns), self._unreadable(rows[half:], columns)]
            )
        return rows[:0]

    def _damaged(self, rows: NDArray[np.int64]) -> DamagedRowsError:
        more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        return DamagedRowsError(
            f"{self._where} is damaged: {self._describe(int(rows[0]))}{more}; {REPAIR_REMEDY}", rows
        )


def part_values(column: pa.ChunkedArray) -> Sequence[bytes] | NDArray[Any]:
    """The values of a column, one a row, as `part_checksum` takes them."""
    if isinstance(column.type, pa.FixedSizeListType):
        return np.ascontiguousarray(fixed_to_numpy(column))
    values: list[bytes] = column.to_pylist()
    return values
