"""Compares all rows of a table with their checksums, also in files that are damaged."""

from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from indexer.library.checked_rows import part_values
from indexer.library.checksums import CHECKSUMS, PARTS, frame_seed, part_checksum, row_seed, stored_checksums
from indexer.library.errors import LibraryError, storage_errors
from indexer.library.lance_tables import fragment_files
from indexer.library.schema import (
    PART_COLUMNS,
    line_checksums,
    named_checksum,
    segment_checksum,
    short_rows,
)
from indexer.library.tables import open_table, table_path

#: Rows read at once: with thumbnails and tokens some megabytes.
_BATCH_ROWS = {"videos": 4096, "files": 4096, "segments": 512, "frames": 256, "texts": 4096}


@dataclass(frozen=True)
class ScannedFragment:
    """The rows of one fragment of a table.

    Attributes:
        fragment_id: its id in the table.
        files: its files.
        first_row: the position of its first row in the table.
        ingests: the ingest id of each row, of `files` the video id; empty where it cannot be read.
        wrong: which rows are damaged: they differ from their checksums or cannot be read, or have no
            checksums while one of the files is damaged.
        unchecked: how many rows have no checksums.
        file_is_damaged: whether one of the files is known to be damaged.
    """

    fragment_id: int
    files: tuple[Path, ...]
    first_row: int
    ingests: list[str]
    wrong: NDArray[np.bool_]
    unchecked: int
    file_is_damaged: bool

    @property
    def is_damaged(self) -> bool:
        """Whether a file or a row is damaged."""
        return self.file_is_damaged or bool(self.wrong.any())


def scan_rows(folder: Path, name: str, version: int | None, damaged: Set[Path]) -> Iterator[ScannedFragment]:
    """Read every row of a table at a version, or at its latest, fragment by fragment.

    Args:
        folder: holds the tables.
        name: one of `TABLES`.
        version: of the table; None: the latest.
        damaged: the files that are known to be damaged.

    Raises:
        LibraryError: the table cannot be opened.
    """
    dataset = open_table(folder, name, version)
    first = 0
    for fragment in dataset.get_fragments():
        files = tuple(fragment_files(table_path(folder, name), fragment))
        stop = first + fragment.count_rows()
        is_damaged = not damaged.isdisjoint(files)
        yield _scan_fragment(
            folder, name, dataset, fragment.fragment_id, files, range(first, stop), is_damaged
        )
        first = stop


def _scan_fragment(
    folder: Path,
    name: str,
    dataset: lance.LanceDataset,
    fragment_id: int,
    files: tuple[Path, ...],
    rows: range,
    is_damaged: bool,
) -> ScannedFragment:
    ingests = [""] * len(rows)
    wrong = np.ones(len(rows), np.bool_)
    unchecked = 0
    for part in _readable(folder, name, dataset, rows):
        place, table = part
        start = place.start - rows.start
        key = "video_id" if name == "files" else "ingest_id"
        ingests[start : start + len(place)] = table[key].to_pylist()
        found, without = _wrong_rows(name, table)
        unchecked += int(without.sum())
        wrong[start : start + len(place)] = found | (without & is_damaged)
    return ScannedFragment(fragment_id, files, rows.start, ingests, wrong, unchecked, is_damaged)


def _readable(
    folder: Path, name: str, dataset: lance.LanceDataset, rows: range
) -> Iterator[tuple[range, pa.Table]]:
    """Those of the rows that can be read: what cannot be read at once is halved."""
    pending = [
        range(start, min(start + _BATCH_ROWS[name], rows.stop))
        for start in range(rows.start, rows.stop, _BATCH_ROWS[name])
    ][::-1]
    while pending:
        part = pending.pop()
        try:
            with storage_errors(table_path(folder, name)):
                table = dataset.take(list(part)).combine_chunks()
                # Text that is no UTF-8 is damaged, too.
                table.validate(full=True)
        except LibraryError:
            if len(part) > 1:
                half = part.start + len(part) // 2
                pending += [range(half, part.stop), range(part.start, half)]
            continue
        yield part, table


def _wrong_rows(name: str, table: pa.Table) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows differ from their checksums, and which have none."""
    count = table.num_rows
    if CHECKSUMS not in table.column_names:
        return np.zeros(count, np.bool_), np.ones(count, np.bool_)
    seeds = _seeds(name, table)
    wrong = np.zeros(count, np.bool_)
    without = np.zeros(count, np.bool_)
    for part in PARTS[name]:
        stored = stored_checksums(name, table[CHECKSUMS], part)
        if part == "row":
            actual = _short_checksums(name, table)
        else:
            values = [
                part_values(table[column])
                for column in PART_COLUMNS[name][part]
                if column in table.column_names
            ]
            actual = [part_checksum(seed, *(value[i] for value in values)) for i, seed in enumerate(seeds)]
        for i, (expected, found) in enumerate(zip(stored, actual, strict=True)):
            without[i] |= expected is None
            wrong[i] |= expected is not None and expected != found
    return wrong, without


def _seeds(name: str, table: pa.Table) -> list[int]:
    """The beginnings of the checksums of rows, from the keys in the table."""
    if name in ("videos", "files", "texts"):
        return []
    keys = zip(table["ingest_id"].to_pylist(), table["segment_index"].to_pylist(), strict=True)
    seeds = [row_seed(*key) for key in keys]
    if name == "segments":
        return seeds
    return [frame_seed(*pair) for pair in zip(seeds, table["frame_index"].to_pylist(), strict=True)]


def _short_checksums(name: str, table: pa.Table) -> list[int]:
    if name in ("videos", "files"):
        return [named_checksum(row) for row in table.to_pylist()]
    if name == "texts":
        return line_checksums(table)
    return [segment_checksum(*row) for row in short_rows(table)]
