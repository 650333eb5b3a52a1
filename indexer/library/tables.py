"""Opens Lance tables, reads their rows, and lists the files of a version."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from indexer.library.checksums import CHECKSUMS, part_checksum, row_seed, stored_checksums
from indexer.library.errors import (
    REPAIR_REMEDY,
    VERIFY_REMEDY,
    DamagedRowsError,
    LibraryError,
    storage_errors,
)
from indexer.library.lance_tables import files_of, open_at, steadily, write_rows
from indexer.library.schema import (
    ADDED_TABLES,
    SHORT_COLUMNS,
    Layout,
    fixed_to_numpy,
    floats_to_numpy,
    segment_checksum,
    short_rows,
)
from indexer.library.storage.registry import storage_of
from model.runtime.faults import checkpoint

#: The tables that have indices.
INDEXED_TABLES = frozenset({"texts"})
#: Embeddings read at once.
_BATCH_ROWS = 16_384


def table_path(folder: Path, table: str) -> Path:
    """The folder of a table, in the folder of its generation's tables (`tables_folder`)."""
    return folder / f"{table}.lance"


def open_table(folder: Path, table: str, version: int | None = None) -> lance.LanceDataset:
    """Open a table at a version, or at its latest.

    Raises:
        LibraryError: it cannot be read.
    """
    return open_at(table_path(folder, table), version)


def table_exists(folder: Path, table: str) -> bool:
    """Whether a generation has a table, in any version."""
    path = table_path(folder, table)
    with storage_errors(path):
        return any(name.endswith(".manifest") for name in storage_of(path).names(path / "_versions"))


def create_table(folder: Path, table: str, layout: Layout) -> None:
    """Create a table without rows.

    Raises:
        LibraryError: it cannot be written.
    """
    checkpoint(f"create.{table}")
    path = table_path(folder, table)

    def create() -> None:
        if not table_exists(folder, table):
            write_rows(path, layout.schema(table).empty_table(), "create")

    steadily(path, create)


def read_layout(folder: Path, tables: Mapping[str, lance.LanceDataset]) -> Layout:
    """The layout of a snapshot's tables.

    Raises:
        LibraryError: they have unexpected columns.
    """
    try:
        layout = Layout.of_schema(tables["segments"].schema)
    except ValueError as error:
        raise LibraryError(f"{table_path(folder, 'segments')}: {error}; {VERIFY_REMEDY}") from error
    expected = layout.schema("frames")
    if CHECKSUMS not in tables["frames"].schema.names:
        # Made before there were checksums: the next indexing run adds them.
        expected = expected.remove(expected.get_field_index(CHECKSUMS))
    if not tables["frames"].schema.equals(expected):
        where = table_path(folder, "frames")
        raise LibraryError(f"{where}: its columns do not match the table of segments; {VERIFY_REMEDY}")
    for name in ADDED_TABLES & tables.keys():
        if not tables[name].schema.equals(layout.schema(name)):
            raise LibraryError(f"{table_path(folder, name)} has unexpected columns; {VERIFY_REMEDY}")
    return layout


def whole_table(dataset: lance.LanceDataset, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of a table, of some columns or of all.

    Rows are taken first: where a file is damaged, taking raises an error, but reading all may abort the
    process (Lance panics where the text of its own error holds a zero byte).
    """
    names = None if columns is None else list(columns)
    for fragment in dataset.get_fragments():
        if fragment.count_rows():
            fragment.take([0], columns=names)
    return dataset.to_table(columns=names)


def version_files(folder: Path, table: str, dataset: lance.LanceDataset) -> list[Path]:
    """Every file of this version of the table, the manifest first; all of them are immutable."""
    return files_of(table_path(folder, table), dataset, indexed=table in INDEXED_TABLES)


def not_finite_ingests(segments: lance.LanceDataset, where: Path) -> dict[str, str]:
    """The ingests with an embedding or hubness that is not finite, and where the first one is, in words.

    Raises:
        LibraryError: the table cannot be read.
    """
    found: dict[str, str] = {}
    with storage_errors(where):
        columns = ["ingest_id", "start_seconds", "embedding", *({"hubness"} & set(segments.schema.names))]
        for batch in segments.to_batches(columns=columns, batch_size=_BATCH_ROWS):
            finite = np.isfinite(fixed_to_numpy(batch["embedding"])).all(axis=1)
            if "hubness" in columns:
                finite &= np.isfinite(floats_to_numpy(batch["hubness"]))
            for row in np.flatnonzero(~finite).tolist():
                start = batch["start_seconds"][row].as_py()
                reason = (
                    f"its embedding at {start:.1f} s holds NaN or infinity; `--retry-failed` reads it again"
                )
                found.setdefault(batch["ingest_id"][row].as_py(), reason)
    return found


class SegmentVectors:
    """What an index holds of `segments`: a `VectorSource` whose rows are the rows of the table.

    A vector is the embedding v or, in a library whose bundle corrects hubness, [v, −weight · hubness]. Its
    inner product with a query [q, 1] is then the corrected similarity, so that no index need know of it.
    """

    def __init__(self, folder: Path, segments: lance.LanceDataset) -> None:
        """`segments` is the table in `folder` at one version."""
        self._path = table_path(folder, "segments")
        self._segments = segments
        layout = Layout.of_schema(segments.schema)
        self._weight, self._dim = layout.hubness_weight, layout.vector_dim
        self._columns = ["embedding"] if self._weight is None else ["embedding", "hubness"]
        if CHECKSUMS in segments.schema.names:
            keys: Sequence[str] = ["ingest_id", "segment_index"]
            if self._weight is not None:
                keys = [name for name in SHORT_COLUMNS if name in segments.schema.names]
            self._columns = list(dict.fromkeys([*self._columns, *keys, CHECKSUMS]))

    @property
    def where(self) -> str:
        """The table's folder."""
        return str(self._path)

    @property
    def num_rows(self) -> int:
        """How many segments there are."""
        return int(self._segments.count_rows())

    @property
    def dim(self) -> int:
        """The size of a vector."""
        return self._dim

    def batches(self, start: int, stop: int) -> Iterator[NDArray[np.float32]]:
        """See `VectorSource`."""
        if start >= stop:
            return
        with storage_errors(self._path):
            scanner = self._segments.scanner(
                columns=self._columns, offset=start, limit=stop - start, batch_size=_BATCH_ROWS
            )
            row = start
            for batch in scanner.to_batches():
                yield self._checked(pa.Table.from_batches([batch]), range(row, row + batch.num_rows))
                row += batch.num_rows

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `VectorSource`."""
        with storage_errors(self._path):
            table = self._segments.take(rows.tolist(), columns=self._columns)
        return self._checked(table, rows.tolist())

    def _checked(self, table: pa.Table, rows: Sequence[int]) -> NDArray[np.float32]:
        """The vectors of rows, compared with their checksums: no index is built of damaged ones."""
        embeddings = np.ascontiguousarray(fixed_to_numpy(table["embedding"]), np.float32)
        if CHECKSUMS in table.column_names:
            stored = stored_checksums("segments", table[CHECKSUMS], "embedding")
            keys = zip(table["ingest_id"].to_pylist(), table["segment_index"].to_pylist(), strict=True)
            seeds = [row_seed(*key) for key in keys]
            wrong = [
                row
                for row, checksum, seed, vector in zip(rows, stored, seeds, embeddings, strict=True)
                if checksum is not None
                and checksum != part_checksum(seed, vector)
                # Whoever asks for the vectors sets aside what is not finite.
                and np.isfinite(vector).all()
            ]
            if self._weight is not None:
                stored = stored_checksums("segments", table[CHECKSUMS], "row")
                wrong += [
                    row
                    for row, checksum, values in zip(rows, stored, short_rows(table), strict=True)
                    if checksum is not None and checksum != segment_checksum(*values)
                ]
            if wrong:
                raise DamagedRowsError(
                    f"{self._path} is damaged: the embedding in row {wrong[0]} differs from its checksum; "
                    f"{REPAIR_REMEDY}",
                    np.unique(wrong),
                )
        if self._weight is None:
            return embeddings
        penalty = np.float32(self._weight) * floats_to_numpy(table["hubness"])
        return np.concatenate([embeddings, -penalty[:, None]], axis=1)
