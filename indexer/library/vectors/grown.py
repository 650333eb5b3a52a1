"""An index with what came and what went since it was built, so that a change costs as much as it is large.

    base: built once, shared by snapshots ── tail: exact, of the vectors added since ── which are there still

*Ids* number the stored vectors, those of the base first. *Rows* number those that are there still: a row is a
row of the table of segments.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Generic

import numpy as np
from numpy.typing import NDArray

from indexer.library.errors import VERIFY_REMEDY, LibraryError
from indexer.library.vectors.base import IndexT, check_rows, no_results, results_per_query

_NO_SCORE = np.finfo(np.float32).min


@dataclass(frozen=True, eq=False)
class GrownIndex(Generic[IndexT]):
    """A `VectorIndex` of two parts, of which some vectors may be gone.

    Attributes:
        base: the vectors of ids 0 to `base.num_rows` - 1.
        tail: those of the ids that follow.
        present: bool [ids]: whether a vector is there still.
    """

    base: IndexT
    tail: IndexT
    present: NDArray[np.bool_]

    @property
    def num_rows(self) -> int:
        """How many vectors are there."""
        return self.num_ids if self._ids is None else len(self._ids)

    @property
    def dim(self) -> int:
        """D: the size of a vector."""
        return self.base.dim

    @property
    def num_ids(self) -> int:
        """How many vectors are stored."""
        return len(self.present)

    def ids_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The ids of rows that exist."""
        return rows if self._ids is None else self._ids[rows]

    def search(
        self, embeddings: NDArray[np.float32], k: int, *, allowed: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """See `VectorIndex`."""
        k = results_per_query(self.num_rows, k, allowed)
        if k == 0:
            return no_results(len(embeddings))
        ids = None if allowed is None else self.ids_of(allowed)
        found = [part.search(embeddings, k, ids) for part in self._parts]
        if len(found) > 1:
            each_scores, each_ids = zip(*found, strict=True)
            found = [_best(np.concatenate(each_scores, axis=1), np.concatenate(each_ids, axis=1), k)]
        scores, merged = found[0]
        if self._ids is not None:
            merged = np.where(merged < 0, -1, np.searchsorted(self._ids, merged))
        return scores, merged

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """See `VectorIndex`."""
        check_rows(rows, self.num_rows)
        ids = self.ids_of(rows)
        vectors = np.empty((len(ids), self.dim), np.float32)
        for part in self._parts:
            own = part.holds(ids)
            stored = part.index.vectors(ids[own] - part.first_id)
            if stored is None:
                return None
            vectors[own] = stored
        return vectors

    @cached_property
    def _ids(self) -> NDArray[np.int64] | None:
        """The id of each row; None: all are there, and an id is a row."""
        return None if self.present.all() else np.flatnonzero(self.present)

    @cached_property
    def _parts(self) -> "list[_Part[IndexT]]":
        """The parts that hold vectors; the base alone if none does."""
        size = self.base.num_rows
        parts = [_Part(self.base, 0, self.present[:size]), _Part(self.tail, size, self.present[size:])]
        return [part for part in parts if part.index.num_rows] or parts[:1]


@dataclass(frozen=True, eq=False)
class _Part(Generic[IndexT]):
    """One of the indexes, and which of its vectors are there."""

    index: IndexT
    first_id: int
    present: NDArray[np.bool_]

    @cached_property
    def num_present(self) -> int:
        return int(self.present.sum())

    def holds(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of some ids are of this part: bool, shape as `ids`."""
        own: NDArray[np.bool_] = (ids >= self.first_id) & (ids < self.first_id + self.index.num_rows)
        return own

    def search(
        self, embeddings: NDArray[np.float32], k: int, ids: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The best of some ids, ascending, or of all that are there: scores and ids, at most `k` of each."""
        if ids is None:
            scores, places = self._search_present(embeddings, k)
        else:
            scores, places = self._search_among(embeddings, k, ids[self.holds(ids)] - self.first_id)
        return np.where(places < 0, _NO_SCORE, scores), np.where(places < 0, -1, places + self.first_id)

    def _search_present(
        self, embeddings: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        num_gone, wanted = len(self.present) - self.num_present, min(k, self.num_present)
        if num_gone == 0:
            return self.index.search(embeddings, k)
        # Some more than are wanted: a search among chosen vectors takes longer, and is seldom needed.
        scores, places = self.index.search(embeddings, k + min(num_gone, k))
        is_gone = (places < 0) | ~self.present[places]
        lacks_some = (places >= 0).all(axis=1) & ((~is_gone).sum(axis=1) < wanted)
        if lacks_some.any():
            return self._search_among(embeddings, k, np.flatnonzero(self.present))
        return _best(np.where(is_gone, _NO_SCORE, scores), np.where(is_gone, -1, places), wanted)

    def _search_among(
        self, embeddings: NDArray[np.float32], k: int, places: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        if not len(places):
            return no_results(len(embeddings))
        return self.index.search(embeddings, k, allowed=places)


def _best(
    scores: NDArray[np.float32], ids: NDArray[np.int64], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k best of each query, best first; an id of -1, which has no score, comes last."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(ids, order, axis=1)


def write_gone(path: Path, present: NDArray[np.bool_]) -> None:
    """Write a bit for each id, which says whether its vector is gone. OSError if that fails."""
    path.write_bytes(np.packbits(~present, bitorder="little").tobytes())


def read_present(path: Path, count: int) -> NDArray[np.bool_]:
    """Which of `count` ids are there still, of a file that `write_gone` wrote.

    Raises:
        LibraryError: it holds fewer or more bits.
        OSError: it cannot be read.
    """
    bits = np.unpackbits(np.frombuffer(path.read_bytes(), np.uint8), bitorder="little")
    if not count <= len(bits) < count + 8 or bits[count:].any():
        raise LibraryError(f"{path} does not hold {count} bits; {VERIFY_REMEDY}")
    return ~bits[:count].astype(np.bool_)
