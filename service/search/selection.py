"""What filters leave of a snapshot, kept for the searches and lists that follow.

Shapes: V videos of the snapshot, failures included; R segments that are left.
"""

import threading
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from indexer.library.snapshot import Snapshot
from service.search.fields import Facts
from service.search.filters import Filter, joined, videos_where
from service.search.sorting import Sort, ranks_of

#: Bytes of selections that are kept for a snapshot; with 1,000,000 segments at least eight.
_MOST_BYTES = 64 << 20
#: Orders of videos that are kept for a snapshot.
_MOST_ORDERS = 8
_OVERHEAD_BYTES = 1 << 10


@dataclass(frozen=True)
class Selection:
    """What a filter leaves.

    Attributes:
        videos: whether it leaves each video, bool [V], in the order of the snapshot's list of videos.
        rows: the segments of those that it leaves, ascending, int64 [R].
        num_searchable: how many of those videos have segments.
    """

    videos: NDArray[np.bool_]
    rows: NDArray[np.int64]
    num_searchable: int

    @property
    def num_bytes(self) -> int:
        """What it takes in memory, about."""
        return self.videos.nbytes + self.rows.nbytes + _OVERHEAD_BYTES


class Selections:
    """The selections of one snapshot. Many threads may use them at once."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._kept: LRUCache[Filter, Selection] = LRUCache(_MOST_BYTES, lambda kept: kept.num_bytes)
        self._ranks: LRUCache[Sort, NDArray[np.int64]] = LRUCache(_MOST_ORDERS)
        self._lock = threading.Lock()

    def of(self, where: Filter) -> Selection:
        """What a filter leaves."""
        with self._lock:
            kept = self._kept.get(where)
        if kept is not None:
            return kept
        videos = videos_where(where, self._facts)
        rows = np.flatnonzero(videos[self._snapshot.video_rows])
        num_searchable = len(np.unique(self._snapshot.video_rows[rows]))
        selection = Selection(videos, rows, num_searchable)
        with self._lock:
            if selection.num_bytes <= _MOST_BYTES:
                self._kept[where] = selection
        return selection

    def ranks(self, sort: Sort) -> NDArray[np.int64]:
        """The place of each video in an order, int64 [V]; those with the same value share theirs."""
        with self._lock:
            kept = self._ranks.get(sort)
        if kept is None:
            kept = ranks_of(sort, self._facts)
            with self._lock:
                self._ranks[sort] = kept
        return kept

    def ordered(self, sort: Sort | None, *filters: Filter | None) -> NDArray[np.int64]:
        """The videos that filters leave together, in an order; None: by their paths. int64 [at most V]."""
        where = joined(*filters)
        num_videos = self._snapshot.catalog.num_rows
        rows = np.arange(num_videos) if where is None else np.flatnonzero(self.of(where).videos)
        return rows if sort is None else rows[np.argsort(self.ranks(sort)[rows], kind="stable")]

    @cached_property
    def _facts(self) -> Facts:
        return Facts(self._snapshot.catalog)
