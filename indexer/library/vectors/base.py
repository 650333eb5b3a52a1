"""The seam to stores of vectors: what a snapshot asks of an index, and of the program that makes it.

The key of a vector is its row in the table of segments. The table is the store of record, so an index can
always be made anew from it, by any backend.

Shapes: B queries, D joint space, K results, R rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from indexer.library.errors import LibraryError

#: The backend of a library whose manifest names none.
DEFAULT_BACKEND = "faiss"
#: The spec that asks for what `VectorBackend.automatic_spec` says, each time an index is published.
AUTOMATIC = "auto"
_BATCH_ROWS = 16_384
_VERIFIED_ROWS = 2048


class VectorSource(Protocol):
    """Vectors that an index is made from, or compared with."""

    @property
    def where(self) -> str:
        """Where the vectors are, for messages."""
        ...

    @property
    def num_rows(self) -> int:
        """How many there are."""
        ...

    @property
    def dim(self) -> int:
        """D: the size of a vector."""
        ...

    def batches(self, start: int, stop: int) -> Iterator[NDArray[np.float32]]:
        """The vectors of rows `start` to `stop`, in order, as contiguous batches [R, D].

        Raises:
            LibraryError: they cannot be read.
        """
        ...

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of some rows, ascending and without repeats: int64 [R] → contiguous [R, D].

        Raises:
            LibraryError: they cannot be read.
        """
        ...


class VectorIndex(Protocol):
    """Vectors that can be searched by inner product, by many threads at once while nothing extends them."""

    @property
    def num_rows(self) -> int:
        """How many vectors it holds: of rows 0 to `num_rows` - 1."""
        ...

    @property
    def dim(self) -> int:
        """D: the size of a vector."""
        ...

    def search(
        self, embeddings: NDArray[np.float32], k: int, *, allowed: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Find the vectors with the greatest inner products.

        Args:
            embeddings: Shape [B, D].
            k: how many, at least 1.
            allowed: rows to search among, ascending and without repeats; None allows all.

        Returns:
            Inner products float32 [B, K], best first, and rows int64 [B, K]. K is k, or less where fewer
            rows are there or allowed. A row is -1 where an approximate index found fewer; these come last.

        Raises:
            ValueError: `allowed` is not in order, or names a row that is not there.
            LibraryError: this kind of index cannot search among chosen rows, or cannot be read.
        """
        ...

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """The vectors of some rows, int64 [R] → [R, D].

        Returns:
            The vectors exactly as they were added; None where the index keeps only something like them.

        Raises:
            ValueError: a row that is not there.
        """
        ...


IndexT = TypeVar("IndexT", bound=VectorIndex)


class VectorBackend(Protocol[IndexT]):
    """Makes, stores and opens one kind of index.

    An index is stored in a snapshot's folder, which is renamed once it is complete, and later removed. Where
    a backend keeps vectors elsewhere, it writes into the folder what it needs to find them.
    """

    @property
    def name(self) -> str:
        """What a library's manifest calls it."""
        ...

    def automatic_spec(self, num_rows: int) -> str:
        """The kind of index for so many vectors."""
        ...

    def check_spec(self, spec: str, dim: int) -> None:
        """Check that `spec`, which is not `AUTOMATIC`, names a kind of index for vectors of size `dim`.

        Raises:
            InputError: it does not; says which do.
        """
        ...

    def build(self, source: VectorSource, spec: str, *, gpu: bool = False) -> tuple[IndexT, str]:
        """Make an index of all vectors of a source.

        Args:
            source: the vectors; their row is their key.
            spec: the kind of index, never `AUTOMATIC`.
            gpu: use the GPUs, where the backend can and there are any.

        Returns:
            The index, and the spec of what it is: an exact one where there are too few vectors for another.

        Raises:
            LibraryError: the source cannot be read, or holds values that are not finite.
        """
        ...

    def extend(self, index: IndexT, source: VectorSource) -> None:
        """Add the rows that the index lacks; those that it has must be the source's first.

        Raises:
            LibraryError: the source cannot be read, or holds values that are not finite.
        """
        ...

    def save(self, index: IndexT, folder: Path) -> tuple[Path, ...]:
        """Write the index into a folder and return the files written, all inside of it.

        Raises:
            LibraryError: they cannot be written.
        """
        ...

    def open(self, folder: Path) -> IndexT:
        """Open the index that `save` wrote into a folder, or into one that was renamed to it.

        Raises:
            LibraryError: it is missing or damaged.
        """
        ...

    def verify(self, index: IndexT, source: VectorSource) -> str | None:
        """Why the index is not that of the source's vectors; None when nothing says so.

        Raises:
            LibraryError: the source cannot be read.
        """
        ...

    def drop(self, folder: Path) -> None:
        """Remove what `save` wrote for a folder; where it wrote nothing, do nothing.

        Raises:
            LibraryError: it cannot be removed.
        """
        ...


AnyBackend = VectorBackend[Any]


@dataclass(frozen=True)
class ArrayVectors:
    """A source in memory: float32, shape [num_rows, D]."""

    array: NDArray[np.float32]
    where: str = "the array"

    @property
    def num_rows(self) -> int:
        """How many vectors there are."""
        return len(self.array)

    @property
    def dim(self) -> int:
        """D: the size of a vector."""
        return int(self.array.shape[1])

    def batches(self, start: int, stop: int) -> Iterator[NDArray[np.float32]]:
        """See `VectorSource`."""
        for first in range(start, stop, _BATCH_ROWS):
            yield np.ascontiguousarray(self.array[first : min(first + _BATCH_ROWS, stop)], np.float32)

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `VectorSource`."""
        return np.ascontiguousarray(self.array[rows], np.float32)


def finite_batches(source: VectorSource, start: int = 0) -> Iterator[NDArray[np.float32]]:
    """The vectors of a source from row `start` on, as batches [R, D]. LibraryError if one is not finite."""
    for batch in source.batches(start, source.num_rows):
        if not np.isfinite(batch).all():
            raise LibraryError(
                f"{source.where} holds embeddings that are not numbers: index into a new folder"
            )
        yield batch


def results_per_query(num_rows: int, k: int, allowed: NDArray[np.int64] | None) -> int:
    """K of a search, see `VectorIndex.search`. ValueError when `allowed` is not as it says there."""
    if k < 1:
        raise ValueError(f"k is {k}, must be at least 1")
    if allowed is None:
        return min(k, num_rows)
    if allowed.ndim != 1 or allowed.dtype != np.int64 or (np.diff(allowed) <= 0).any():
        raise ValueError("the allowed rows must be int64 of shape [R], ascending and without repeats")
    if len(allowed) and not 0 <= allowed[0] <= allowed[-1] < num_rows:
        wrong = allowed[0] if allowed[0] < 0 else allowed[-1]
        raise ValueError(f"allowed row {wrong} is not in 0..{num_rows - 1}")
    return min(k, len(allowed))


def no_results(num_queries: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """What a search returns where nothing can be found: scores and rows of shape [B, 0]."""
    return np.empty((num_queries, 0), np.float32), np.empty((num_queries, 0), np.int64)


def difference(index: VectorIndex, source: VectorSource) -> str | None:
    """How an index differs from the source in number, size or vectors; None when it does not.

    The first and the last vectors are compared, where the index keeps them: an index of another state
    differs at one end.
    """
    if (index.num_rows, index.dim) != (source.num_rows, source.dim):
        return (
            f"the index holds {index.num_rows} vectors of size {index.dim}, "
            f"{source.where} {source.num_rows} of size {source.dim}"
        )
    size = min(_VERIFIED_ROWS, index.num_rows)
    for start in sorted({0, index.num_rows - size}):
        row = start
        for batch in source.batches(start, start + size):
            vectors = index.vectors(np.arange(row, row + len(batch)))
            if vectors is not None and not np.array_equal(vectors, batch):
                return f"the index holds other vectors than {source.where}"
            row += len(batch)
    return None
