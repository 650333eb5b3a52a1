"""Lance: vectors on the disk, in a table beside the snapshots, with an index that grows with it.

A publication writes what has changed, however large the library is. Vectors are kept as they are, so what the
index finds is ranked by true inner products.
"""

import re
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
from lance.dataset import serialize_row_addrs
from numpy.typing import NDArray

from indexer.library.errors import VERIFY_REMEDY, LibraryError, storage_errors
from indexer.library.lance_tables import files_of, reading
from indexer.library.storage.registry import storage_of
from indexer.library.vectors.base import (
    VectorSource,
    check_rows,
    difference,
    no_results,
    results_per_query,
    shared_folder,
)
from indexer.library.vectors.lance_table import (
    COLUMN,
    PLACE_FILE,
    Place,
    changed,
    create_index,
    index_parts,
    new_table,
    open_version,
    read_place,
    remove_unnamed,
    schema_of,
)
from indexer.library.vectors.place_files import write_place
from model.runtime.errors import InputError

#: Up to this many vectors, all are compared.
FLAT_LIMIT = 20_000
_FLAT = "Flat"
_SPEC = re.compile(r"IVF([1-9]\d{0,6}),SQ8")
#: A search reads one of this many lists, but not fewer than the least number.
_LISTS_SHARE = 32
_LEAST_LISTS = 8
#: The 8-bit vectors find this many times the results that are asked for; the vectors choose among them.
_REFINE_FACTOR = 2
#: A search among chosen rows reads this many times the lists needed to see as many rows as one among all.
_FILTERED_EFFORT = 2
#: The vectors of up to this many allowed rows are read and compared without the index.
_READ_ROWS = 4096
#: A new table is made when more than this share of the rows is gone.
_MOST_GONE = 0.2


class LanceIndex:
    """A version of a table of vectors. It does not change any more."""

    def __init__(self, path: Path, dataset: lance.LanceDataset, lists: int) -> None:
        """`path` is the table's folder, `lists` how many lists its index has; 0: there is none."""
        self.path = path
        self.dataset = dataset
        self.lists = lists
        with reading(), storage_errors(path):
            found = dataset.scanner(columns=[], with_row_address=True).to_table()
        #: Where each row is: the number of its file in the upper 32 bits, its place there in the lower ones.
        self.addresses: NDArray[np.uint64] = found["_rowaddr"].to_numpy()
        if (self.addresses[1:] <= self.addresses[:-1]).any():
            raise LibraryError(f"{path} has rows in another order; {VERIFY_REMEDY}")

    @property
    def num_rows(self) -> int:
        """How many vectors there are."""
        return len(self.addresses)

    @property
    def dim(self) -> int:
        """D: the size of a vector."""
        return int(self.dataset.schema.field(COLUMN).type.list_size)

    def search(
        self, embeddings: NDArray[np.float32], k: int, *, allowed: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """See `VectorIndex`."""
        k = results_per_query(self.num_rows, k, allowed)
        if k == 0 or not len(embeddings):
            return no_results(len(embeddings))
        queries = np.ascontiguousarray(embeddings, np.float32)
        with reading(), storage_errors(self.path):
            if allowed is not None and len(allowed) <= _READ_ROWS:
                return self._search_few(queries, k, allowed)
            share = 1.0 if allowed is None else len(allowed) / self.num_rows
            found = self.dataset.scanner(
                columns=["_distance"],
                with_row_id=True,
                prefilter=True,
                nearest={"column": COLUMN, "q": queries, "k": k, "metric": "dot", **self._effort(share)},
                **self._filter(allowed),
            ).to_table()
        return self._by_query(found, len(queries), k)

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `VectorIndex`."""
        if not len(rows):
            return np.empty((0, self.dim), np.float32)
        check_rows(rows, self.num_rows)
        with reading(), storage_errors(self.path):
            return self._take(rows)

    def _take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        column = self.dataset.take(rows.tolist(), columns=[COLUMN])[COLUMN].combine_chunks()
        vectors: NDArray[np.float32] = column.flatten().to_numpy().reshape(len(rows), self.dim)
        return vectors

    def _search_few(
        self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        scores = queries @ self._take(allowed).T
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, order, axis=1), allowed[order]

    def _effort(self, share: float) -> dict[str, Any]:
        """How thoroughly the index is searched when this share of the rows is allowed."""
        if not self.lists:
            return {"use_index": False}
        read = max(_LEAST_LISTS, self.lists // _LISTS_SHARE)
        if share < 1:
            read = int(np.ceil(_FILTERED_EFFORT * read / share))
        return {"nprobes": min(self.lists, read), "refine_factor": _REFINE_FACTOR}

    def _filter(self, allowed: NDArray[np.int64] | None) -> dict[str, Any]:
        """The allowed rows as Lance takes them: these or all others, whichever are fewer."""
        if allowed is None or len(allowed) == self.num_rows:
            return {}
        if len(allowed) * 2 <= self.num_rows:
            return {"row_addr_allowlist": serialize_row_addrs(self.addresses[allowed].tolist())}
        is_other = np.ones(self.num_rows, np.bool_)
        is_other[allowed] = False
        return {"row_addr_blocklist": serialize_row_addrs(self.addresses[is_other].tolist())}

    def _by_query(
        self, found: pa.Table, num_queries: int, k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """What Lance finds, a row a result, as scores and rows [B, K]."""
        distances, queries = found["_distance"].to_numpy(), found["query_index"].to_numpy()
        order = np.lexsort((distances, queries))
        queries = queries[order]
        places = np.arange(len(queries)) - np.searchsorted(queries, queries)
        scores = np.full((num_queries, k), -np.inf, np.float32)
        rows = np.full((num_queries, k), -1, np.int64)
        # Lance gives 1 less the inner product.
        scores[queries, places] = 1 - distances[order]
        rows[queries, places] = np.searchsorted(self.addresses, found["_rowid"].to_numpy()[order])
        return scores, rows


class LanceBackend:
    """Builds indexes of two kinds: 'Flat', and lists of 8-bit vectors: 'IVF1024,SQ8'."""

    name = "lance"

    def automatic_spec(self, num_rows: int) -> str:
        """Exact up to `FLAT_LIMIT` vectors, then lists of 8-bit vectors.

        The number of lists is the power of two nearest to √n, so it changes, and the index is trained again,
        each time the library has grown about fourfold.
        """
        return _FLAT if num_rows <= FLAT_LIMIT else f"IVF{2 ** round(np.log2(np.sqrt(num_rows)))},SQ8"

    def check_spec(self, spec: str, dim: int) -> None:  # noqa: ARG002  each kind is one for any size
        """See `VectorBackend`."""
        if spec != _FLAT and _SPEC.fullmatch(spec) is None:
            raise InputError(
                f"index factory {spec!r} is none of the backend 'lance': use one like 'Flat' or "
                "'IVF1024,SQ8', or 'auto'"
            )

    def build(
        self,
        source: VectorSource,
        spec: str,
        folder: Path,
        *,
        gpu: bool = False,  # noqa: ARG002  Lance trains on a GPU only with PyTorch
    ) -> tuple[LanceIndex, str]:
        """See `VectorBackend`. The index is `Flat` when there are fewer vectors than lists."""
        match = _SPEC.fullmatch(spec)
        lists = int(match[1]) if match else 0
        if lists > source.num_rows:
            lists, spec = 0, _FLAT
        path, dataset = new_table(folder, source)
        if lists:
            dataset = create_index(path, dataset, lists)
        return LanceIndex(path, dataset, lists), spec

    def extend(
        self, index: LanceIndex, source: VectorSource, kept: NDArray[np.int64] | None = None
    ) -> LanceIndex | None:
        """See `VectorBackend`. It is built anew where many rows are gone."""
        num_kept = index.num_rows if kept is None else len(kept)
        if num_kept == index.num_rows == source.num_rows:
            return index
        if index.num_rows - num_kept > _MOST_GONE * index.num_rows:
            return None
        is_gone = np.full(index.num_rows, kept is not None)
        is_gone[kept if kept is not None else slice(0)] = False
        gone = index.addresses[is_gone]
        return LanceIndex(index.path, changed(index.path, index.dataset, gone, source, num_kept), index.lists)

    def save(self, index: LanceIndex, folder: Path) -> tuple[Path, ...]:
        """Write `vectors.json`, and return it with the files of the table's version."""
        place = Place(index.path.name, index.dataset.version, index.num_rows, index.dim, index.lists)
        with storage_errors(index.path):
            files = files_of(index.path, index.dataset, indexed=True)
        return write_place(folder / PLACE_FILE, place), *files

    def open(self, folder: Path) -> LanceIndex:
        """Open the version of the table that `vectors.json` names."""
        place = read_place(folder)
        path = shared_folder(folder) / place.table
        dataset = open_version(path, place.version)
        with storage_errors(path):
            is_right = dataset.schema == schema_of(place.dim) and bool(index_parts(dataset)) == bool(
                place.lists
            )
        if not is_right:
            raise LibraryError(f"{path} has other columns or indexes than expected; {VERIFY_REMEDY}")
        index = LanceIndex(path, dataset, place.lists)
        if index.num_rows != place.num_rows:
            raise LibraryError(
                f"{path} has {index.num_rows} rows, not {place.num_rows} as {folder / PLACE_FILE} says; "
                f"{VERIFY_REMEDY}"
            )
        return index

    def verify(self, index: LanceIndex, source: VectorSource) -> str | None:
        """See `VectorBackend`."""
        return difference(index, source)

    def drop(self, folder: Path) -> None:
        """Remove `vectors.json`, and what of the tables no other snapshot names."""
        with storage_errors(folder / PLACE_FILE):
            storage_of(folder).remove(folder / PLACE_FILE)
        remove_unnamed(folder)
