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
from service.search.filters import Filter, videos_where
from service.search.folders import searchable_seconds
from service.search.sorting import Sort, ranks_of
from service.search.views import ALL_PATHS, PathNames

#: Bytes of selections that are kept for a view of a snapshot; with 1,000,000 segments at least eight.
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


@dataclass(frozen=True)
class Present:
    """What is there of a selection, and what is missing.

    Attributes:
        videos: which videos are there, bool [V].
        rows: their segments, ascending.
        missing_rows: the segments of the others, ascending.
    """

    videos: NDArray[np.bool_]
    rows: NDArray[np.int64]
    missing_rows: NDArray[np.int64]


class Selections:
    """The selections of one snapshot, without its hidden videos. Many threads may use them at once.

    Args:
        snapshot: the snapshot.
        names: how paths look, which filters compare and orders sort.
    """

    def __init__(self, snapshot: Snapshot, names: PathNames = ALL_PATHS) -> None:
        self._snapshot = snapshot
        self._names = names
        self._kept: LRUCache[Filter, Selection] = LRUCache(_MOST_BYTES, lambda kept: kept.num_bytes)
        self._ranks: LRUCache[Sort, NDArray[np.int64]] = LRUCache(_MOST_ORDERS)
        self._lock = threading.Lock()

    def of(self, where: Filter) -> Selection:
        """What a filter leaves."""
        with self._lock:
            kept = self._kept.get(where)
        if kept is not None:
            return kept
        videos = videos_where(where, self.facts) & self._snapshot.catalog.visible
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
            kept = ranks_of(sort, self.facts)
            with self._lock:
                self._ranks[sort] = kept
        return kept

    def ordered(self, sort: Sort | None, where: Filter | None = None) -> NDArray[np.int64]:
        """The videos that a filter leaves, in an order; None: by their paths. int64 [at most V]."""
        shown = self._snapshot.catalog.visible if where is None else self.of(where).videos
        rows = np.flatnonzero(shown)
        if sort is None and self._names.view.folder is not None:
            # The rows are in the order of paths that may be hidden.
            sort = Sort("path")
        return rows if sort is None else rows[np.argsort(self.ranks(sort)[rows], kind="stable")]

    def hours(self, rows: NDArray[np.int64]) -> float:
        """Hours of the videos in some rows that can be searched."""
        return float(searchable_seconds(self.facts)[rows].sum()) / 3600

    def present(self, selected: Selection | None) -> "Present | None":
        """Of what a filter leaves, what is there and what is missing.

        None: nothing is missing, or everything is, so that they need not be told apart.
        """
        if not self._snapshot.catalog.missing.any():
            return None
        if selected is None:
            return self._present_of_all
        return self._present_of(selected.videos, selected.rows)

    @cached_property
    def _present_of_all(self) -> "Present | None":
        visible = self._snapshot.catalog.visible
        return self._present_of(visible, np.flatnonzero(visible[self._snapshot.video_rows]))

    def _present_of(self, videos: NDArray[np.bool_], rows: NDArray[np.int64]) -> "Present | None":
        is_there = ~self._snapshot.catalog.missing
        among = is_there[self._snapshot.video_rows[rows]]
        if among.all() or not among.any():
            return None
        return Present(videos & is_there, rows[among], rows[~among])

    @cached_property
    def facts(self) -> Facts:
        """What is known of all videos."""
        return Facts(self._snapshot.catalog, self._snapshot.curation, self._names)
