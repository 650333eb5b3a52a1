"""Checks that the rows of `frames` are in the order of those of `segments`, which do not name them."""

import lance
import numpy as np
import pyarrow as pa
from lance.fragment import LanceFragment
from numpy.typing import NDArray

from indexer.library.row_changes import content_of

_SEGMENT_COLUMNS = ["ingest_id", "segment_index"]
_FRAME_COLUMNS = ["ingest_id", "segment_index", "frame_index"]
_BATCH_ROWS = 1 << 18


def misalignment(
    segments: lance.LanceDataset, frames: lance.LanceDataset, aligned: lance.LanceDataset | None = None
) -> str | None:
    """How the frames are not in the order of the segments; None when they are.

    Args:
        segments: the table.
        frames: the table.
        aligned: an earlier version of `frames` that was in the order of the segments of its time, of which
            `segments` has some, in the same order, before all others. Of the files that both versions of
            `frames` have, only the first and the last row are read: rows go and come with whole videos, so
            that what lies between these two can only be as it was.
    """
    expected = _Expected(segments)
    known = set() if aligned is None else {content_of(fragment) for fragment in aligned.get_fragments()}
    ends: list[int] = []
    row = 0
    for fragment in frames.get_fragments():
        count = fragment.count_rows()
        if content_of(fragment) in known:
            ends += [row, row + count - 1][: min(count, 2)]
        else:
            problem = expected.difference(fragment, row)
            if problem is not None:
                return problem
        row += count
    if row != expected.num_frames:
        return f"{row} frames, but the segments have {expected.num_frames}"
    rows = np.array(ends, np.int64)
    for part in np.array_split(rows, max(1, len(rows) // _BATCH_ROWS)):
        if not len(part):
            continue
        problem = expected.difference_at(frames.take(part.tolist(), _FRAME_COLUMNS), part)
        if problem is not None:
            return problem
    return None


class _Expected:
    """The keys that the frames of a table of segments must have."""

    def __init__(self, segments: lance.LanceDataset) -> None:
        self._segments = segments
        counts = segments.to_table(columns=["num_frames"])["num_frames"].to_numpy().astype(np.int64)
        self._ends = np.cumsum(counts)
        self._firsts = self._ends - counts
        self.num_frames = int(counts.sum())

    def difference(self, frames: LanceFragment, row: int) -> str | None:
        """How the frames from a row on differ; None when they do not, or when there are too many."""
        for batch in frames.to_batches(columns=_FRAME_COLUMNS, batch_size=_BATCH_ROWS):
            rows = np.arange(row, row + batch.num_rows)
            row += batch.num_rows
            if row > self.num_frames:
                return None
            problem = self.difference_at(pa.Table.from_batches([batch]), rows)
            if problem is not None:
                return problem
        return None

    def difference_at(self, frames: pa.Table, rows: NDArray[np.int64]) -> str | None:
        """How frames differ from those that must be in some rows, int64 [R], ascending."""
        segment_of = np.searchsorted(self._ends, rows, side="right")
        named, place = np.unique(segment_of, return_inverse=True)
        expected = self._keys(named).take(pa.array(place))
        for column in _SEGMENT_COLUMNS:
            if not expected[column].combine_chunks().equals(frames[column].combine_chunks()):
                return "frames are not in the order of their segments"
        if not np.array_equal(frames["frame_index"].to_numpy(), rows - self._firsts[segment_of]):
            return "a segment's frames are not in order"
        return None

    def _keys(self, segments: NDArray[np.int64]) -> pa.Table:
        """The keys of segments in some rows, ascending and without repeats."""
        if not len(segments):
            return self._segments.schema.empty_table().select(_SEGMENT_COLUMNS)
        first, count = int(segments[0]), len(segments)
        if segments[-1] - first == count - 1:
            return self._segments.to_table(columns=_SEGMENT_COLUMNS, offset=first, limit=count)
        return self._segments.take(segments.tolist(), columns=_SEGMENT_COLUMNS)
