"""A table of vectors that snapshots share: each names a version of it. A vector's key is its position.

    library/vectors/NAME.lance        one column of vectors, and an index on it
    library/snapshots/7/vectors.json  which table, at which version

Files are never written again: a change adds files, and a version says which of them it is made of. The newest
version may be one that no snapshot names, since the run that made it was killed, or an earlier snapshot is
served again: the next change begins with a copy of the version that it goes on from.
"""

import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from indexer.library.errors import LibraryError, storage_errors
from indexer.library.lance_tables import open_at, write_rows
from indexer.library.storage.registry import storage_of
from indexer.library.vectors import place_files
from indexer.library.vectors.base import VectorSource, finite_batches, shared_folder
from model.runtime.faults import checkpoint

PLACE_FILE = "vectors.json"
#: The name of the column, and of its index.
COLUMN = INDEX = "vector"
_NAME = re.compile(r"[0-9a-f]{16}\.lance")
#: What of indexes and of tables' metadata is held in memory, for all snapshots together.
_INDEX_CACHE_BYTES = 2 << 30
_METADATA_CACHE_BYTES = 256 << 20
#: K-means reads this many vectors for each list.
_TRAINING_PER_LIST = 64
_FRAGMENT_ROWS = 1 << 20
#: New rows are joined with those before them that are at most this many times as many.
_JOINED_RATIO = 4
#: Rows deleted at once, since their addresses are written as text.
_DELETED_ROWS = 16_384


@dataclass(frozen=True)
class Place:
    """The content of `vectors.json`.

    Attributes:
        table: the name of the table's folder.
        version: its version.
        num_rows: how many vectors this has.
        dim: D, the size of a vector.
        lists: how many lists the index has; 0: there is no index.
    """

    table: str
    version: int
    num_rows: int
    dim: int
    lists: int


def read_place(folder: Path, *, in_store: bool = False) -> Place:
    """Read `vectors.json` of a snapshot; see `place_files.read_place`."""
    path = folder / PLACE_FILE
    return place_files.read_place(path, Place, _can_be, "table of vectors", in_store=in_store)


def _can_be(place: Place) -> bool:
    is_named = isinstance(place.table, str) and _NAME.fullmatch(place.table) is not None
    counts = (place.version, place.num_rows, place.dim, place.lists)
    return is_named and place_files.are_counts(*counts) and place.dim > 0


def new_table(folder: Path, source: VectorSource) -> tuple[Path, lance.LanceDataset]:
    """Write all vectors of a source into a new table for a snapshot's folder.

    Raises:
        LibraryError: they cannot be read or written, or are not finite.
    """
    path = shared_folder(folder) / f"{secrets.token_hex(8)}.lance"
    with storage_errors(path):
        path.parent.mkdir(exist_ok=True)
    return path, _write(path, source, 0, "create")


def open_version(path: Path, version: int | None = None) -> lance.LanceDataset:
    """Open a table at a version, or at its latest. LibraryError when it cannot be read."""
    return open_at(path, version, session=_session())


def schema_of(dim: int) -> pa.Schema:
    """The columns of a table of vectors of size `dim`."""
    return pa.schema([pa.field(COLUMN, pa.list_(pa.float32(), dim), nullable=False)])


def create_index(path: Path, dataset: lance.LanceDataset, lists: int) -> lance.LanceDataset:
    """Index all rows: lists of 8-bit vectors. → The new version.

    Raises:
        LibraryError: it cannot be written.
    """
    checkpoint("vectors.index")
    with storage_errors(path):
        dataset.create_index(
            COLUMN,
            "IVF_SQ",
            name=INDEX,
            metric="dot",
            num_partitions=lists,
            sample_rate=_TRAINING_PER_LIST,
        )
    return open_version(path)


def changed(
    path: Path, dataset: lance.LanceDataset, gone: NDArray[np.uint64], source: VectorSource, num_kept: int
) -> lance.LanceDataset:
    """A new version without some rows, and with those of a source that follow the rows which are kept.

    New rows are indexed, and joined with those that came shortly before, so that there are few files and few
    parts of the index however often rows come. The lists stay as they were trained.

    Args:
        path: the table's folder.
        dataset: the version to go on from.
        gone: addresses of the rows that are gone, uint64 [R].
        source: its first `num_kept` rows are those that are kept.
        num_kept: how many rows are kept.

    Raises:
        LibraryError: rows cannot be read or written, or are not finite.
    """
    with storage_errors(path):
        if open_version(path).version != dataset.version:
            open_version(path, dataset.version).restore()  # type: ignore[no-untyped-call]
            checkpoint("vectors.restored")
        for start in range(0, len(gone), _DELETED_ROWS):
            listed = ", ".join(map(str, gone[start : start + _DELETED_ROWS].tolist()))
            open_version(path).delete(f"_rowaddr IN ({listed})")
            checkpoint("vectors.deleted")
    if source.num_rows > num_kept:
        latest = _write(path, source, num_kept, "append")
        with storage_errors(path):
            _join(path, latest)
    return open_version(path)


def index_parts(dataset: lance.LanceDataset) -> list[int]:
    """How many rows each part of the index was made of, in the table's order; empty: there is no index."""
    rows = {fragment.fragment_id: fragment.physical_rows for fragment in dataset.get_fragments()}
    parts = [
        sorted(segment.fragment_ids)
        for index in dataset.describe_indices()
        if index.name == INDEX
        for segment in index.segments
    ]
    return [sum(rows.get(number, 0) for number in part) for part in sorted(parts)]


def remove_unnamed(folder: Path) -> None:
    """Remove the tables, and the versions of them, that no snapshot beside `folder` names, itself included.

    Raises:
        LibraryError: they cannot be removed.
    """
    shared = shared_folder(folder)
    storage = storage_of(shared)
    with storage_errors(shared):
        tables = [shared / name for name in storage.names(shared) if _NAME.fullmatch(name)]
    if not tables:
        return
    try:
        folders = place_files.places_of_all(folder.parent, PLACE_FILE)
        places = [read_place(each, in_store=in_store) for each, in_store in folders]
    except LibraryError:
        # A damaged file may name any version: remove none until its snapshot is removed.
        return
    for path in tables:
        with storage_errors(path):
            _remove_versions(path, {place.version for place in places if place.table == path.name})


@cache
def _session() -> Any:
    """Shared by all snapshots: what two of them have in common is held once."""
    return lance.Session(_INDEX_CACHE_BYTES, _METADATA_CACHE_BYTES)  # type: ignore[attr-defined]


def _write(
    path: Path, source: VectorSource, start: int, mode: Literal["create", "append"]
) -> lance.LanceDataset:
    """Write the vectors of a source from row `start` on. → The new version."""
    schema = schema_of(source.dim)
    failures: list[Exception] = []

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            for batch in finite_batches(source, start):
                column = pa.FixedSizeListArray.from_arrays(pa.array(batch.reshape(-1)), source.dim)
                yield pa.record_batch([column], schema=schema)
        except Exception as error:
            # Lance raises an error of its own for it.
            failures.append(error)
            raise

    try:
        with storage_errors(path):
            reader = pa.RecordBatchReader.from_batches(schema, batches())
            write_rows(path, reader, mode, max_rows_per_file=_FRAGMENT_ROWS)
            checkpoint("vectors.written")
    except LibraryError:
        for failure in failures:
            raise failure from None
        raise
    return open_version(path)


def _join(path: Path, dataset: lance.LanceDataset) -> None:
    """Bring the rows of the last fragment into the index, and join both with what came shortly before."""
    *before, new = dataset.get_fragments()
    num_new = new.count_rows()
    if parts := index_parts(dataset):
        # This makes one part of the last ones and of the rows that are in none.
        dataset.optimize.optimize_indices(
            index_names=[INDEX], num_indices_to_merge=_num_joined(parts, num_new)
        )
        checkpoint("vectors.indexed")
    count = _num_joined([fragment.count_rows() for fragment in before], num_new)
    if not count:
        return
    # Lance moves joined fragments to the end, so they must be the last ones.
    kept = [fragment.fragment_id for fragment in before[:-count]]
    indexed = open_version(path)
    row = sum(fragment.count_rows() for fragment in before[:-count])
    ends = []
    for fragment in [*before[-count:], new]:
        ends += [row, row + fragment.count_rows() - 1]
        row += fragment.count_rows()
    expected = indexed.take(ends, columns=[COLUMN])
    indexed.optimize.compact_files(
        target_rows_per_fragment=_FRAGMENT_ROWS,
        num_threads=1,
        compaction_mode="try_binary_copy",
        excluded_fragment_ids=kept,
    )
    checkpoint("vectors.joined")
    if not open_version(path).take(ends, columns=[COLUMN]).equals(expected):
        raise LibraryError(f"{path}: its rows have another order after they were joined")


def _num_joined(parts: Sequence[int], num_new: int) -> int:
    """How many of the last parts are joined with a new one, all given by their numbers of rows.

    Few parts remain, and a row is written again only a few times, however often new ones come.
    """
    count = 0
    for size in reversed(parts):
        if size > _JOINED_RATIO * num_new:
            break
        num_new += size
        count += 1
    return count


def _remove_versions(path: Path, named: set[int]) -> None:
    """Remove a table of which no version is named, or else all versions that are not, but for the latest."""
    checkpoint("vectors.remove")
    storage = storage_of(path)
    if not named:
        storage.remove_folder(path)
        return
    dataset = open_version(path)
    present = {each["version"] for each in dataset.versions()}
    old = sorted(present - named - {dataset.version})
    if old:
        dataset.cleanup_old_versions(versions=old, delete_unverified=storage.is_local)
