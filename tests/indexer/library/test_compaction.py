"""Fragments are joined so that rows keep their order, as Lance joins them."""

from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest

from indexer.library.compaction import FragmentRows, fragment_rows, join_fragments, plan_compaction

SCHEMA = pa.schema([("number", pa.int64())])
JOINED = 100


def compacted(
    folder: Path, sizes: list[int], deleted: str | None
) -> tuple[lance.LanceDataset, pa.Table, bool]:
    """A table of fragments after its compaction, its rows before, and whether anything was done."""
    path = str(folder / "table.lance")
    start = 0
    for size in sizes:
        rows = pa.table({"number": np.arange(start, start + size)}, schema=SCHEMA)
        lance.write_dataset(rows, path, mode="append" if start else "create")
        start += size
    dataset = lance.dataset(path)
    if deleted:
        dataset.delete(deleted)
        dataset = lance.dataset(path)
    before = dataset.to_table()
    plan = plan_compaction(fragment_rows(dataset), JOINED)
    if plan is not None:
        join_fragments(dataset, plan, 64)
    return lance.dataset(path), before, plan is not None


@pytest.mark.parametrize(
    ("sizes", "deleted", "most"),
    [
        ([100] * 3 + [10] * 9, None, 4),
        # Large ones between small ones, as long videos and many at once make them.
        ([32] * 20 + [360] + [32] * 20 + [500] + [7], None, 5),
        ([150] + [32] * 9 + [360], None, 4),
        ([100, 400, 100] + [1] * 30, None, 4),
        ([100] * 10, "number % 3 = 0", 7),
        ([100] * 10 + [3] * 9, "number < 150", 10),
        ([200] * 5, "number >= 400 AND number < 790", 3),
    ],
    ids=str,
)
def test_rows_keep_their_order(tmp_path: Path, sizes: list[int], deleted: str | None, most: int) -> None:
    dataset, before, was_done = compacted(tmp_path, sizes, deleted)
    assert was_done
    assert dataset.to_table().equals(before)
    now = fragment_rows(dataset)
    assert len(now) <= most
    # It is not done again for the same.
    assert plan_compaction(now, JOINED) is None


@pytest.mark.parametrize(
    ("sizes", "deleted"),
    [([], None), ([5] * 8, None), ([100] * 20, None), ([100] * 10, "number < 150")],
    ids=str,
)
def test_little_is_left_alone(tmp_path: Path, sizes: list[int], deleted: str | None) -> None:
    if not sizes:
        assert plan_compaction([], JOINED) is None
        return
    dataset, before, was_done = compacted(tmp_path, sizes, deleted)
    assert not was_done
    assert dataset.to_table().equals(before)


def test_what_is_large_and_comes_first_is_not_written_again() -> None:
    sizes = [120, 300, 20, 150, *[30] * 8]
    plan = plan_compaction([FragmentRows(n + 5, size, 0) for n, size in enumerate(sizes)], JOINED)
    assert plan is not None
    assert plan.left_alone == (5, 6)
    assert plan.joined_rows == 151
