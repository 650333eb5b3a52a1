"""Reads rows of a table and compares them with their checksums: a damaged row is refused by name."""

import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from indexer.library.catalog import VideoCatalog
from indexer.library.checksums import CHECKSUMS, PARTS, checksums_array, frame_seed, row_seed
from indexer.library.errors import REPAIR_REMEDY, DamagedRowsError, LibraryError, storage_errors
from indexer.library.lance_tables import fragment_files, reading, steadily
from indexer.library.row_cache import RowCache, RowKeys, RowValues
from indexer.library.schema import PART_COLUMNS, fixed_to_numpy
from indexer.library.storage.registry import storage_of
from indexer.library.tables import table_path

#: The beginnings of the checksums of some rows, int64 [K], and what to call a row in an error message.
RowSeeds = Callable[[NDArray[np.int64]], list[int]]
RowName = Callable[[int], str]
#: The values of a column, one a row.
PartValues = Sequence[bytes] | NDArray[Any]


class RowNames:
    """The keys of a snapshot's rows, and what error messages call them. For the arrays, see `Snapshot`."""

    def __init__(
        self,
        videos: VideoCatalog,
        video_rows: NDArray[np.int32],
        segment_index: NDArray[np.int32],
        start_seconds: NDArray[np.float64],
        frame_offset: NDArray[np.int64],
    ) -> None:
        self._videos, self._video_rows = videos, video_rows
        self._start_seconds, self._frame_offset = start_seconds, frame_offset
        self._segment_seeds = np.array(
            [
                row_seed(videos.ingest_at(row), index)
                for row, index in zip(video_rows.tolist(), segment_index.tolist(), strict=True)
            ],
            np.uint32,
        )

    def segment_seeds(self, rows: NDArray[np.int64]) -> list[int]:
        """The seeds of rows of `segments`."""
        seeds: list[int] = self._segment_seeds[rows].tolist()
        return seeds

    def frame_seeds(self, rows: NDArray[np.int64]) -> list[int]:
        """The seeds of rows of `frames`."""
        segments = np.searchsorted(self._frame_offset, rows, side="right") - 1
        frames = (rows - self._frame_offset[segments]).tolist()
        return [
            frame_seed(seed, frame) for seed, frame in zip(self.segment_seeds(segments), frames, strict=True)
        ]

    def segment(self, row: int) -> str:
        """What to call a segment."""
        video = self._videos.label(self._videos.id_at(int(self._video_rows[row])))
        path = "an unknown video" if video is None else video.path
        return f"the segment at {self._start_seconds[row]:.1f} s of {path}"

    def frame(self, row: int) -> str:
        """What to call a stored frame."""
        segment = int(np.searchsorted(self._frame_offset, row, side="right")) - 1
        return f"stored frame {row - int(self._frame_offset[segment])} of {self.segment(segment)}"


class CheckedRows:
    """The rows of a table at one version. Many threads may read them at once.

    The checksums are in memory, 4 bytes each: reading a row costs no access to the disk more. Rows without
    checksums, of libraries made before there were any, are returned as they are read, unless `distrust` has
    named their file.

    Attributes:
        cache: keeps rows that agree with their checksums; None: every row is read whenever it is asked for.
    """

    cache: RowCache | None = None

    def __init__(
        self, folder: Path, name: str, dataset: lance.LanceDataset, seeds: RowSeeds, describe: RowName
    ) -> None:
        """`folder` holds the tables. LibraryError when the checksums cannot be read."""
        self._name, self._dataset = name, dataset
        self._where = table_path(folder, name)
        self._storage = storage_of(self._where)
        self._seeds, self._describe = seeds, describe
        present = dataset.schema.names
        self._columns = {
            part: [column for column in columns if column in present]
            for part, columns in PART_COLUMNS[name].items()
        }
        self._checksums: NDArray[np.uint32] | None = None
        #: Which rows have no checksums; None: none.
        self._without: NDArray[np.bool_] | None = None
        if CHECKSUMS in present:
            with reading(), storage_errors(self._where):
                column = dataset.to_table(columns=[CHECKSUMS])[CHECKSUMS].combine_chunks()
            self._checksums = checksums_array(name, column)
            if column.null_count:
                self._without = column.is_null().to_numpy(zero_copy_only=False)
        self._distrusted: list[range] = []

    def distrust(self, files: Iterable[Path]) -> None:
        """Refuse the rows without checksums in these files."""
        damaged = set(files)
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
        if self.cache is None or self._checksums is None:
            arrays = [np.asarray(values) for values in self._read(distinct, parts)]
        else:
            arrays = self._read_or_kept(distinct, parts, self.cache)
        return arrays if np.array_equal(distinct, rows) else [array[inverse] for array in arrays]

    def take_bytes(self, row: int, part: str) -> bytes:
        """The one column of a part of one row. Raises as `take`."""
        (values,) = self._read(np.array([row]), (part,))
        value: bytes = values[0]
        return value

    @cached_property
    def _keys(self) -> RowKeys:
        with storage_errors(self._where):
            return steadily(self._where, lambda: RowKeys(self._where, self._dataset))

    def _read_or_kept(
        self, rows: NDArray[np.int64], parts: tuple[str, ...], cache: RowCache
    ) -> list[NDArray[Any]]:
        """As `_read`, but only of what the cache does not have."""
        keys = self._keys.of(rows, parts)
        found = cache.get(self._name, keys)
        missing = [place for place, values in enumerate(found) if values is None]
        if not missing:
            return _stacked(found)
        read = [np.asarray(values) for values in self._read(rows[missing], parts)]
        # Copies: a part of an array would keep all of it in memory.
        new: list[RowValues] = [tuple(column[i].copy() for column in read) for i in range(len(missing))]
        # What has no checksum may be distrusted later.
        kept = [
            i for i, place in enumerate(missing) if self._without is None or not self._without[rows[place]]
        ]
        cache.put([keys[missing[i]] for i in kept], [new[i] for i in kept])
        if len(missing) == len(found):
            return read
        for place, values in zip(missing, new, strict=True):
            found[place] = values
        return _stacked(found)

    def _read(self, rows: NDArray[np.int64], parts: Sequence[str]) -> list[PartValues]:
        """The values of each column of each part."""
        columns = [name for part in parts for name in self._columns[part]]
        try:
            table = self._take(rows, columns)
        except LibraryError:
            unreadable = self._unreadable(rows, columns) if len(rows) > 1 else rows
            if len(unreadable) in (0, len(rows)):
                raise
            raise self._damaged(unreadable) from None
        values = [part_values(table[column]) for column in columns]
        wrong = self._wrong(rows, values, parts)
        if wrong.any():
            raise self._damaged(rows[wrong])
        return values

    def _take(self, rows: NDArray[np.int64], columns: list[str]) -> pa.Table:
        """Some columns of rows, not yet compared with their checksums."""
        with reading(), self._storage.reading(), storage_errors(self._where):
            return steadily(self._where, lambda: self._dataset.take(rows.tolist(), columns=columns))

    def _wrong(
        self, rows: NDArray[np.int64], values: Sequence[PartValues], parts: Sequence[str]
    ) -> NDArray[np.bool_]:
        """Which rows differ from their checksums, or have none in a damaged file."""
        wrong = np.zeros(len(rows), np.bool_)
        if self._checksums is None:
            without = np.ones(len(rows), np.bool_)
        else:
            seeds = self._seeds(rows)
            columns = iter(values)
            for part in parts:
                actual = seeds
                for _ in self._columns[part]:
                    pairs = zip(next(columns), actual, strict=True)
                    actual = [zlib.crc32(value, seed) for value, seed in pairs]
                expected = self._checksums[rows, PARTS[self._name].index(part)]
                wrong |= expected != np.array(actual, np.uint32)
            if self._without is None:
                return wrong
            without = self._without[rows]
        wrong[without] = False
        for distrusted in self._distrusted:
            wrong |= without & (rows >= distrusted.start) & (rows < distrusted.stop)
        return wrong

    def _unreadable(self, rows: NDArray[np.int64], columns: list[str]) -> NDArray[np.int64]:
        """Which of these rows cannot be read, by halves: one damaged page must not refuse all."""
        try:
            self._take(rows, columns)
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


def _stacked(rows: Sequence[RowValues | None]) -> list[NDArray[Any]]:
    """The values of rows, all of which are there, as an array for each column."""
    known = [values for values in rows if values is not None]
    return [np.stack(column) for column in zip(*known, strict=True)]


def part_values(column: pa.ChunkedArray) -> PartValues:
    """The values of a column, one a row, as checksums are computed of them."""
    if isinstance(column.type, pa.FixedSizeListType):
        return np.ascontiguousarray(fixed_to_numpy(column))
    values: list[bytes] = column.to_pylist()
    return values
