"""The protocols of vector stores: the index that a snapshot searches, and the backend that makes it.

The key of a vector is its row in the table of segments. The table is the store of record: any backend can
always rebuild an index from it.

Shapes: B queries, D joint space, K results, R rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from indexer.library.errors import NotFiniteError

#: The backend of a library whose manifest names none.
DEFAULT_BACKEND = "faiss"
#: Beside the folder of snapshots: what a backend keeps for several of them.
SHARED = "vectors"
#: The spec that stands for what `VectorBackend.automatic_spec` returns each time an index is published, and
#: the name that stands for the backend which suits the number of vectors then.
AUTOMATIC = "auto"
_BATCH_ROWS = 16_384
_VERIFIED_ROWS = 2048


class VectorSource(Protocol):
    """Vectors from which an index is built, or with which it is compared."""

    @property
    def where(self) -> str:
        """Where the vectors are, for error messages."""
        ...

    @property
    def num_rows(self) -> int:
        """How many vectors there are."""
        ...

    @property
    def dim(self) -> int:
        """D: the size of a vector."""
        ...

    def batches(self, start: int, stop: int) -> Iterator[NDArray[np.float32]]:
        """The vectors of rows `start` to `stop`, in order, as contiguous batches [R, D].

        Raises:
            LibraryError: the vectors cannot be read.
        """
        ...

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of some rows, ascending and without repeats: int64 [R] → contiguous [R, D].

        Raises:
            LibraryError: the vectors cannot be read.
        """
        ...


class VectorIndex(Protocol):
    """Vectors that can be searched by inner product, by many threads at once."""

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
            k: how many vectors to find, at least 1.
            allowed: rows to search among, ascending and without repeats; None: all rows. An approximate index
                finds at least 95 of 100 of the nearest ones, however few are allowed.

        Returns:
            Inner products float32 [B, K], best first, and rows int64 [B, K]. K is k, or the number of allowed
            rows if that is less. A row is -1 where an approximate index found fewer; these come last.

        Raises:
            ValueError: `allowed` is not in order, or names a row that does not exist.
            LibraryError: this kind of index cannot search among chosen rows, or cannot be read.
        """
        ...

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """The vectors of some rows, int64 [R] → [R, D].

        Returns:
            The vectors exactly as they were added; None where the index stores only approximations.

        Raises:
            ValueError: a row does not exist.
        """
        ...


IndexT = TypeVar("IndexT", bound=VectorIndex)


class VectorBackend(Protocol[IndexT]):
    """Makes, stores and opens one kind of index.

    An index is stored in a snapshot's folder, which is renamed when it is complete, and later removed. A
    backend that keeps vectors elsewhere, such as in the library's `shared_folder`, writes into the folder
    what it needs to find them. Whoever builds, extends, saves or drops holds the library's lock.
    """

    @property
    def name(self) -> str:
        """The name in a library's manifest."""
        ...

    def automatic_spec(self, num_rows: int) -> str:
        """The recommended kind of index for this number of vectors."""
        ...

    def check_spec(self, spec: str, dim: int) -> None:
        """Check that `spec`, which is not `AUTOMATIC`, names a kind of index for vectors of size `dim`.

        Raises:
            InputError: it does not; the message shows specs that do.
        """
        ...

    def build(
        self, source: VectorSource, spec: str, folder: Path, *, gpu: bool = False
    ) -> tuple[IndexT, str]:
        """Build an index of all vectors of a source.

        Args:
            source: the vectors; a vector's key is its row.
            spec: the kind of index, never `AUTOMATIC`.
            folder: where `save` will be called; only a backend that builds on the disk uses it.
            gpu: use the GPUs if there are any and the backend can.

        Returns:
            The index and its spec, which is that of an exact index where there are too few vectors for
            `spec`.

        Raises:
            LibraryError: the source cannot be read, or holds values that are not finite.
        """
        ...

    def extend(
        self, index: IndexT, source: VectorSource, kept: NDArray[np.int64] | None = None
    ) -> IndexT | None:
        """An index of a source which has lost some of an index's rows, and has others after them.

        Args:
            index: the index. It stays as it is, and so do its files.
            source: its first rows are those of the index that are kept, in their order.
            kept: the rows of the index that are kept, int64 [R], ascending and without repeats; None: all.

        Returns:
            The index, made with less work than `build`; None where it is better to build one, for instance
            since most rows are gone.

        Raises:
            LibraryError: the source cannot be read, or holds values that are not finite.
        """
        ...

    def save(self, index: IndexT, folder: Path) -> tuple[Path, ...]:
        """Write the index into a folder and return its files: those in it, and those in `shared_folder`.

        What an opened index shares with the one saved now may be a hard link to the file of the other folder:
        nobody writes to a saved file.

        Raises:
            LibraryError: the files cannot be written.
        """
        ...

    def open(self, folder: Path) -> IndexT:
        """Open the index that `save` wrote into a folder, which may have been renamed since.

        Raises:
            LibraryError: it is missing or damaged.
        """
        ...

    def verify(self, index: IndexT, source: VectorSource) -> str | None:
        """How the index differs from the source's vectors; None when no difference is found.

        Raises:
            LibraryError: the source cannot be read.
        """
        ...

    def drop(self, folder: Path) -> None:
        """Remove what `save` wrote for a folder, if anything, and what is shared with no other snapshot.

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


def shared_folder(folder: Path) -> Path:
    """Where the library of a snapshot's folder has what a backend keeps for several snapshots."""
    return folder.parent.parent / SHARED


def finite_batches(source: VectorSource, start: int = 0) -> Iterator[NDArray[np.float32]]:
    """The vectors of a source from row `start` on, in batches [R, D].

    Raises:
        NotFiniteError: a vector is not finite.
        LibraryError: they cannot be read.
    """
    for batch in source.batches(start, source.num_rows):
        if not np.isfinite(batch).all():
            raise NotFiniteError(
                f"{source.where} holds embeddings that are not finite: index into a new folder"
            )
        yield batch


def results_per_query(num_rows: int, k: int, allowed: NDArray[np.int64] | None) -> int:
    """K of a search, see `VectorIndex.search`.

    Raises:
        ValueError: `k` or `allowed` is invalid.
    """
    if k < 1:
        raise ValueError(f"k is {k}: it must be at least 1")
    if allowed is None:
        return min(k, num_rows)
    if allowed.ndim != 1 or allowed.dtype != np.int64 or (np.diff(allowed) <= 0).any():
        raise ValueError("the allowed rows must be int64 of shape [R], ascending and without repeats")
    if len(allowed) and not 0 <= allowed[0] <= allowed[-1] < num_rows:
        wrong = allowed[0] if allowed[0] < 0 else allowed[-1]
        raise ValueError(f"allowed row {wrong} is not in 0..{num_rows - 1}")
    return min(k, len(allowed))


def check_rows(rows: NDArray[np.int64], num_rows: int) -> None:
    """Raise a ValueError unless there are all of some rows: a library may read outside of its memory."""
    if len(rows) and not 0 <= rows.min() <= rows.max() < num_rows:
        raise ValueError(f"rows {rows.min()} to {rows.max()} are not in 0..{num_rows - 1}")


def no_results(num_queries: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The result of a search among no rows: scores and rows of shape [B, 0]."""
    return np.empty((num_queries, 0), np.float32), np.empty((num_queries, 0), np.int64)


def difference(index: VectorIndex, source: VectorSource) -> str | None:
    """How an index differs from the source in number, size or vectors; None when it does not.

    Only the first and the last vectors are compared, if the index stores them: an index of another state
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
