"""Keeps rows of tables that were read lately in memory: what a search needs of them is then not read again.

A row is known by the files of its fragment and its place in them. Lance never changes a file, so that the
rows of another snapshot with the same files are known too, and no snapshot is ever given a row of another.
A fragment of which rows were deleted has one more file: its rows are read anew.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

import lance
import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from indexer.library.lance_tables import fragment_files

# About what Python needs for an entry beside its values: the key, the arrays' headers, the order.
_ENTRY_BYTES = 500

_is_read_anew: ContextVar[bool] = ContextVar("_is_read_anew", default=False)

#: The values of one row, an array for each column.
RowValues = tuple[NDArray[Any], ...]
#: Called after each reading with the table's name, and how many rows were in the cache and how many not.
CacheObserver = Callable[[str, int, int], None]


@contextmanager
def reading_anew() -> Iterator[None]:
    """Let this thread read all rows in the context: those that are kept do not show what can be read."""
    before = _is_read_anew.set(True)
    try:
        yield
    finally:
        _is_read_anew.reset(before)


class RowKey(NamedTuple):
    """Which values of which row.

    Attributes:
        parts: the parts of the row, see `PART_COLUMNS`.
        files: the paths of the files of its fragment.
        place: its place among the rows of that.
    """

    parts: tuple[str, ...]
    files: tuple[str, ...]
    place: int


class RowKeys:
    """The keys of the rows of a table at one version."""

    def __init__(self, where: Path, dataset: lance.LanceDataset) -> None:
        """`where` is the table's folder."""
        fragments = dataset.get_fragments()
        counts = [fragment.count_rows() for fragment in fragments]
        self._starts = np.cumsum([0, *counts])[:-1]
        self._files = [tuple(str(path) for path in fragment_files(where, fragment)) for fragment in fragments]

    def of(self, rows: NDArray[np.int64], parts: tuple[str, ...]) -> list[RowKey]:
        """The keys of some parts of rows, int64 [K]."""
        fragments = np.searchsorted(self._starts, rows, side="right") - 1
        places = rows - self._starts[fragments]
        return [
            RowKey(parts, self._files[fragment], place)
            for fragment, place in zip(fragments.tolist(), places.tolist(), strict=True)
        ]


class RowCache:
    """Rows that were read lately, up to a number of bytes. Every method may be called from any thread."""

    def __init__(self, max_bytes: int, observe: CacheObserver | None = None) -> None:
        """`max_bytes` is at least 0; with 0, nothing is kept."""
        self._lock = threading.Lock()
        self._rows: LRUCache[RowKey, RowValues] = LRUCache(max_bytes, getsizeof=_num_bytes)
        self._observe = observe

    @property
    def num_bytes(self) -> int:
        """What the rows take in memory, about."""
        return int(self._rows.currsize)

    @property
    def max_bytes(self) -> int:
        """What they may take."""
        return int(self._rows.maxsize)

    def get(self, table: str, keys: Sequence[RowKey]) -> list[RowValues | None]:
        """The values of rows of a table; None for those that are not kept. Nobody may change them."""
        if _is_read_anew.get():
            return [None] * len(keys)
        with self._lock:
            found = [self._rows.get(key) for key in keys]
        if self._observe is not None:
            missing = found.count(None)
            self._observe(table, len(found) - missing, missing)
        return found

    def put(self, keys: Sequence[RowKey], values: Sequence[RowValues]) -> None:
        """Keep rows, in place of those that were not asked for the longest."""
        with self._lock:
            for key, row in zip(keys, values, strict=True):
                if _num_bytes(row) <= self.max_bytes:
                    self._rows[key] = row


def _num_bytes(row: RowValues) -> int:
    return _ENTRY_BYTES + sum(array.nbytes for array in row)
