"""What became of the rows of a table between two of its versions, read from as few files as possible."""

from collections.abc import Sequence

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lance.fragment import LanceFragment
from numpy.typing import NDArray

_KEY = ["ingest_id", "segment_index"]


def content_of(fragment: LanceFragment) -> tuple[int, tuple[str, ...], str | None]:
    """What tells whether a fragment has the same rows in two versions of a table."""
    files = tuple(file.path for file in fragment.data_files())
    return fragment.fragment_id, files, fragment.deletion_file()


def kept_rows(old: lance.LanceDataset, new: lance.LanceDataset) -> NDArray[np.int64] | None:
    """The rows of a version of `segments` that are the first rows of a later one.

    Rows are added after all others, and removed with all others of their ingest. Fragments are joined from
    some place on, and get new numbers. So only files are read that the two versions do not share.

    Returns:
        int64 [R], ascending; None where the later version does not begin with rows of the earlier one.
    """
    later = {fragment.fragment_id: fragment for fragment in new.get_fragments()}
    shared: list[int] = []
    kept = [np.empty(0, np.int64)]
    gone: list[tuple[int, LanceFragment]] = []
    row = 0
    for fragment in old.get_fragments():
        now = later.get(fragment.fragment_id)
        count = fragment.count_rows()
        if now is None:
            gone.append((row, fragment))
        else:
            own = _kept_of_fragment(fragment, now)
            if own is None:
                return None
            shared.append(fragment.fragment_id)
            kept.append(row + own)
        row += count
    if list(later)[: len(shared)] != shared:
        return None
    rows = np.concatenate(kept)
    if gone:
        # They were joined to new ones, or all of their rows are removed.
        added = [later[number] for number in list(later)[len(shared) :]]
        before = _keys([fragment for _, fragment in gone])
        joined = _kept_of(before, _keys(added) if added else before.slice(0, 0))
        if joined is None:
            return None
        gone_rows = np.concatenate([first + np.arange(fragment.count_rows()) for first, fragment in gone])
        rows = np.concatenate([rows, gone_rows[joined]])
    return rows if (np.diff(rows) > 0).all() else None


def _kept_of_fragment(before: LanceFragment, now: LanceFragment) -> NDArray[np.int64] | None:
    if content_of(before) == content_of(now):
        return np.arange(before.count_rows())
    kept = _kept_of(_keys([before]), _keys([now]))
    return kept if kept is not None and len(kept) == now.count_rows() else None


def _keys(fragments: Sequence[LanceFragment]) -> pa.Table:
    tables = [fragment.to_table(columns=_KEY) for fragment in fragments]
    return pa.concat_tables(tables).combine_chunks()


def _kept_of(before: pa.Table, after: pa.Table) -> NDArray[np.int64] | None:
    """Which of some rows are still there, where these come first; None where others do."""
    is_kept = pc.is_in(before["ingest_id"], value_set=pc.unique(after["ingest_id"]))
    kept = np.flatnonzero(is_kept.to_numpy())
    first = after.slice(0, len(kept)).combine_chunks()
    return kept if before.filter(is_kept).combine_chunks().equals(first) else None
