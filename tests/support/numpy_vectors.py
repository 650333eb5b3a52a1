"""Stores of vectors besides FAISS: exact search with NumPy, in the snapshot's folder or elsewhere."""

import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.library.errors import LibraryError, storage_errors
from indexer.library.vectors.base import (
    VectorSource,
    check_rows,
    difference,
    finite_batches,
    results_per_query,
)
from model.runtime.errors import InputError

FILE = "vectors.npy"
PLACE = "place.txt"


@dataclass
class NumpyIndex:
    """All vectors in one array [num_rows, D]."""

    array: NDArray[np.float32]

    @property
    def num_rows(self) -> int:
        return len(self.array)

    @property
    def dim(self) -> int:
        return int(self.array.shape[1])

    def search(
        self, embeddings: NDArray[np.float32], k: int, *, allowed: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        k = results_per_query(self.num_rows, k, allowed)
        rows = np.arange(self.num_rows) if allowed is None else allowed
        scores = embeddings @ self.array[rows].T
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, order, axis=1), rows[order]

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        check_rows(rows, self.num_rows)
        return self.array[rows]


class NumpyBackend:
    """Knows one kind of index: 'exact'."""

    name = "numpy"

    def automatic_spec(self, num_rows: int) -> str:
        return "exact"

    def check_spec(self, spec: str, dim: int) -> None:
        if spec != "exact":
            raise InputError(f"index factory {spec!r} is not one: use 'exact', or 'auto'")

    def build(
        self, source: VectorSource, spec: str, folder: Path, *, gpu: bool = False
    ) -> tuple[NumpyIndex, str]:
        return self.extend(NumpyIndex(np.empty((0, source.dim), np.float32)), source), spec

    def extend(
        self, index: NumpyIndex, source: VectorSource, kept: NDArray[np.int64] | None = None
    ) -> NumpyIndex:
        first = index.array if kept is None else index.array[kept]
        return NumpyIndex(np.concatenate([first, *finite_batches(source, len(first))]))

    def save(self, index: NumpyIndex, folder: Path) -> tuple[Path, ...]:
        with storage_errors(folder / FILE):
            np.save(folder / FILE, index.array)
        return (folder / FILE,)

    def open(self, folder: Path) -> NumpyIndex:
        with storage_errors(folder / FILE):
            try:
                array = np.load(folder / FILE, allow_pickle=False)
            except EOFError as error:
                raise ValueError("it is empty") from error
        if array.ndim != 2 or array.dtype != np.float32:
            raise LibraryError(f"{folder / FILE} holds {array.dtype} {array.shape}, expected float32 [R, D]")
        return NumpyIndex(array)

    def verify(self, index: NumpyIndex, source: VectorSource) -> str | None:
        return difference(index, source)

    def drop(self, folder: Path) -> None:
        with storage_errors(folder / FILE):
            (folder / FILE).unlink(missing_ok=True)


class ShelfBackend(NumpyBackend):
    """Keeps the vectors outside of the library, as a server would; the snapshot's folder says where."""

    name = "shelf"

    def __init__(self, shelf: Path) -> None:
        self.shelf = shelf

    def save(self, index: NumpyIndex, folder: Path) -> tuple[Path, ...]:
        place = self.shelf / uuid.uuid4().hex
        place.mkdir(parents=True)
        super().save(index, place)
        (folder / PLACE).write_text(place.name)
        return (folder / PLACE,)

    def open(self, folder: Path) -> NumpyIndex:
        with storage_errors(folder / PLACE):
            place = self.shelf / (folder / PLACE).read_text()
        return super().open(place)

    def drop(self, folder: Path) -> None:
        with storage_errors(folder / PLACE):
            if (folder / PLACE).exists():
                # Of a damaged place nothing can be found.
                shutil.rmtree(self.shelf / (folder / PLACE).read_text(), ignore_errors=True)
                (folder / PLACE).unlink()
