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

#: Bytes of selections that are kept for a snapshot; with 1,000,000 segments at least eight.
_MOST_BYTES = 64 << 20
_OVERHEAD_BYTES = 1 << 10


@dataclass(frozen=True)
class Selection:
    """What a filter leaves.

    Attributes:
        videos: whether it leaves each video, bool [V], in the order of the snapshot's list of videos.
        rows: the segments of those that it leaves, ascending, int64 [R].
    """

    videos: NDArray[np.bool_]
    rows: NDArray[np.int64]

    @property
    def num_bytes(self) -> int:
        """What it takes in memory, about."""
        return self.videos.nbytes + self.rows.nbytes + _OVERHEAD_BYTES


class Selections:
    """The selections of one snapshot. Many threads may use them at once."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._kept: LRUCache[Filter, Selection] = LRUCache(_MOST_BYTES, lambda kept: kept.num_bytes)
        self._lock = threading.Lock()

    def of(self, where: Filter) -> Selection:
        """What a filter leaves."""
        with self._lock:
            kept = self._kept.get(where)
        if kept is not None:
            return kept
        videos = videos_where(where, self._facts)
        selection = Selection(videos, np.flatnonzero(videos[self._snapshot.video_rows]))
        with self._lock:
            if selection.num_bytes <= _MOST_BYTES:
                self._kept[where] = selection
        return selection

    @cached_property
    def _facts(self) -> Facts:
        return Facts(self._snapshot.catalog)
