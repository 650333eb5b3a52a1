"""Checksums of rows: computed when a row is written, compared each time it is read.

Each table has a column of CRC-32 checksums, one for each part of a row that is read on its own. A checksum
begins with the row's key, so that a whole row in the place of another one is noticed too. Libraries made
before lack the column; the next indexing run adds it, empty for the rows that are already there.
"""

import struct
import zlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

#: The column, and the parts of a row that have a checksum of their own, in its order.
CHECKSUMS = "checksums"
PARTS: dict[str, tuple[str, ...]] = {
    "videos": ("row",),
    "files": ("row",),
    "segments": ("row", "times", "salience", "embedding"),
    "frames": ("tokens", "thumbnail"),
    "texts": ("row",),
}


def checksums_field(table: str) -> pa.Field:
    """The column of a table: null where a row was written before there were checksums."""
    return pa.field(CHECKSUMS, pa.list_(pa.uint32(), len(PARTS[table])))


def row_seed(ingest_id: str, segment_index: int) -> int:
    """The beginning of the checksums of a row of `segments`: its key."""
    return zlib.crc32(f"{ingest_id}/{segment_index}".encode())


def frame_seed(segment_seed: int, frame_index: int) -> int:
    """The beginning of the checksums of a row of `frames`: its key, which begins with that of its segment."""
    return zlib.crc32(b"/%d" % frame_index, segment_seed)


def part_checksum(seed: int, *values: Any) -> int:
    """The checksum of one part of a row: of bytes, or of contiguous arrays."""
    crc = seed
    for value in values:
        crc = zlib.crc32(value, crc)
    return crc


def row_checksum(values: Iterable[object]) -> int:
    """The checksum of a row of short values: text, bytes, numbers, times and None."""
    return zlib.crc32(b"\0".join(map(_canonical, values)))


def _canonical(value: object) -> bytes:
    if isinstance(value, float):
        return struct.pack("<d", value)
    if isinstance(value, datetime):
        return repr(value.timestamp()).encode()
    return repr(value).encode()


def checksums_column(table: str, parts: Sequence[Sequence[int]]) -> pa.FixedSizeListArray:
    """The column for rows whose checksums are `parts`, a sequence for each part."""
    values = np.asarray(parts, np.uint32).reshape(len(PARTS[table]), -1).T.reshape(-1)
    kind = checksums_field(table).type
    return pa.FixedSizeListArray.from_arrays(pa.array(values, pa.uint32()), type=kind)


def stored_checksums(table: str, column: pa.ChunkedArray, part: str) -> list[int | None]:
    """The stored checksums of one part, None for each row without."""
    at = PARTS[table].index(part)
    array = column.combine_chunks()
    chosen: list[int] = checksums_array(table, array)[:, at].tolist()
    if not array.null_count:
        return list(chosen)
    return [
        value if valid else None for value, valid in zip(chosen, array.is_valid().to_pylist(), strict=True)
    ]


def checksums_array(table: str, column: pa.FixedSizeListArray) -> NDArray[np.uint32]:
    """The column as an array [rows, parts], 0 where there are no checksums."""
    values: NDArray[np.uint32] = column.values.fill_null(0).to_numpy(zero_copy_only=False)
    rows = values.reshape(-1, len(PARTS[table]))[column.offset : column.offset + len(column)]
    return rows.astype(np.uint32, copy=False)
