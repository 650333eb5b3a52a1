"""Opens Lance tables, reads their rows, and lists the files of a version."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lance
import numpy as np
from numpy.typing import NDArray

from indexer.library.errors import VERIFY_REMEDY, LibraryError, storage_errors
from indexer.library.schema import Layout, fixed_to_numpy
from model.runtime.tokens import QuantisedTokens, dequantise

#: Embeddings read at once.
_BATCH_ROWS = 16_384


def table_path(library: Path, table: str) -> Path:
    """The folder of a table."""
    return library / f"{table}.lance"


def open_table(library: Path, table: str, version: int | None = None) -> lance.LanceDataset:
    """Open a table at a version, or at its latest.

    Raises:
        LibraryError: it cannot be read.
    """
    path = table_path(library, table)
    with storage_errors(path):
        dataset = lance.dataset(str(path), version=version)
        elsewhere = dataset.base_paths()
    if elsewhere:
        # Lance would read them, over the network too.
        raise LibraryError(f"{path} names files outside of the library: do not use it")
    return dataset


def read_layout(library: Path, tables: Mapping[str, lance.LanceDataset]) -> Layout:
    """The layout of a snapshot's tables.

    Raises:
        LibraryError: they have unexpected columns.
    """
    try:
        layout = Layout.of_schema(tables["segments"].schema)
    except ValueError as error:
        raise LibraryError(f"{table_path(library, 'segments')}: {error}; {VERIFY_REMEDY}") from error
    if not tables["frames"].schema.equals(layout.schema("frames")):
        where = table_path(library, "frames")
        raise LibraryError(f"{where}: its columns do not match the table of segments; {VERIFY_REMEDY}")
    return layout


def version_files(library: Path, table: str, dataset: lance.LanceDataset) -> list[Path]:
    """Every file of this version of the table, the manifest first; all of them are immutable."""
    root = table_path(library, table)
    # Lance counts down in the names of manifests, so that the newest sorts first.
    files = [root / "_versions" / f"{2**64 - 1 - dataset.version:020d}.manifest"]
    for fragment in dataset.get_fragments():
        files += [root / "data" / data.path for data in fragment.data_files()]
        deletion = fragment.deletion_file()
        if deletion:
            files.append(root / deletion)
    return files


def take_fixed(
    dataset: lance.LanceDataset, where: Path, rows: NDArray[np.int64], columns: Sequence[str]
) -> list[NDArray[Any]]:
    """Read columns of fixed-size lists at some rows.

    Args:
        dataset: a table at one version.
        where: its folder, for error messages.
        rows: int64, shape [K], in any order; rows may repeat.
        columns: the names of the columns.

    Returns:
        An array [K, size] for each column.

    Raises:
        LibraryError: the table cannot be read.
    """
    # Each row once and ascending: Lance then reads neighbours together and need not sort.
    distinct, inverse = np.unique(rows, return_inverse=True)
    with storage_errors(where):
        table = dataset.take(distinct.tolist(), columns=list(columns))
    arrays = [fixed_to_numpy(table[name]) for name in columns]
    if np.array_equal(distinct, rows):
        return arrays
    return [array[inverse] for array in arrays]


def take_tokens(
    dataset: lance.LanceDataset, where: Path, rows: NDArray[np.int64], layout: Layout
) -> NDArray[np.float32]:
    """Read the tokens of frames, int64 [K] → float32 [K, P', H].

    Raises:
        LibraryError: the table cannot be read.
    """
    shape = (len(rows), layout.tokens_per_frame, layout.token_dim)
    if not len(rows):
        return np.zeros(shape, np.float32)
    if layout.tokens == "float32":
        (tokens,) = take_fixed(dataset, where, rows, ["tokens"])
        return tokens.reshape(shape)
    values, scale = take_fixed(dataset, where, rows, ["tokens", "token_scale"])
    return dequantise(QuantisedTokens(values.reshape(shape), scale))


def not_finite_ingests(segments: lance.LanceDataset, where: Path) -> dict[str, str]:
    """The ingests that have an embedding with NaN or infinity, and where the first one is, in words.

    Raises:
        LibraryError: the table cannot be read.
    """
    found: dict[str, str] = {}
    with storage_errors(where):
        columns = ["ingest_id", "start_seconds", "embedding"]
        for batch in segments.to_batches(columns=columns, batch_size=_BATCH_ROWS):
            finite = np.isfinite(fixed_to_numpy(batch["embedding"])).all(axis=1)
            for row in np.flatnonzero(~finite).tolist():
                start = batch["start_seconds"][row].as_py()
                reason = (
                    f"its embedding at {start:.1f} s holds NaN or infinity; `--retry-failed` reads it again"
                )
                found.setdefault(batch["ingest_id"][row].as_py(), reason)
    return found


class SegmentVectors:
    """The embeddings in `segments`: a `VectorSource` whose rows are the rows of the table."""

    def __init__(self, library: Path, segments: lance.LanceDataset) -> None:
        """`segments` is the library's table at one version."""
        self._path = table_path(library, "segments")
        self._segments = segments

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
        """D: the size of an embedding."""
        return int(self._segments.schema.field("embedding").type.list_size)

    def batches(self, start: int, stop: int) -> Iterator[NDArray[np.float32]]:
        """See `VectorSource`."""
        if start >= stop:
            return
        with storage_errors(self._path):
            scanner = self._segments.scanner(
                columns=["embedding"], offset=start, limit=stop - start, batch_size=_BATCH_ROWS
            )
            for batch in scanner.to_batches():
                yield np.ascontiguousarray(fixed_to_numpy(batch["embedding"]), np.float32)

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `VectorSource`."""
        with storage_errors(self._path):
            table = self._segments.take(rows.tolist(), columns=["embedding"])
        return np.ascontiguousarray(fixed_to_numpy(table["embedding"]), np.float32)
