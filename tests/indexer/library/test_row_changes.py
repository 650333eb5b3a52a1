"""Which rows are kept between two versions of a table: against a naive comparison of all keys."""

from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest

from indexer.library.compaction import fragment_rows, join_fragments, plan_compaction
from indexer.library.row_changes import kept_rows

SCHEMA = pa.schema([("ingest_id", pa.string()), ("segment_index", pa.int32())])


class Table:
    """A table of segments that grows, loses videos and is compacted, as the library's."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "segments.lance")
        lance.write_dataset(SCHEMA.empty_table(), self.path)
        self.videos: list[int] = []
        self._next = 0

    @property
    def now(self) -> lance.LanceDataset:
        return lance.dataset(self.path)

    def add(self, sizes: list[int]) -> None:
        rows = [(f"{self._next + n:016x}", i) for n, size in enumerate(sizes) for i in range(size)]
        columns = {"ingest_id": [row[0] for row in rows], "segment_index": [row[1] for row in rows]}
        lance.write_dataset(pa.table(columns, schema=SCHEMA), self.path, mode="append")
        self.videos += range(self._next, self._next + len(sizes))
        self._next += len(sizes)

    def remove(self, videos: list[int]) -> None:
        listed = ", ".join(f"'{video:016x}'" for video in videos)
        if videos:
            self.now.delete(f"ingest_id IN ({listed})")
        self.videos = [video for video in self.videos if video not in videos]

    def compact(self) -> bool:
        plan = plan_compaction(fragment_rows(self.now), 20)
        if plan is not None:
            join_fragments(self.now, plan, 64)
        return plan is not None


def keys(dataset: lance.LanceDataset) -> list[tuple[str, int]]:
    table = dataset.to_table()
    return list(zip(table["ingest_id"].to_pylist(), table["segment_index"].to_pylist(), strict=True))


@pytest.mark.parametrize("seed", range(6))
def test_what_is_kept_is_what_a_comparison_of_all_keys_finds(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = Table(tmp_path)
    versions = [table.now.version]
    compactions = 0
    for _ in range(50):
        action = rng.random()
        if action < 0.6:
            table.add(rng.integers(1, 12, int(rng.integers(1, 5))).tolist())
        elif action < 0.8:
            count = min(len(table.videos), int(rng.integers(1, 4)))
            table.remove([int(video) for video in rng.permutation(table.videos)[:count]])
        else:
            compactions += table.compact()
        versions.append(table.now.version)
    assert compactions
    now = keys(table.now)
    for version in versions:
        old = lance.dataset(table.path, version=version)
        before = keys(old)
        expected = [row for row, key in enumerate(before) if key in set(now)]
        assert now[: len(expected)] == [before[row] for row in expected]
        kept = kept_rows(old, table.now)
        assert kept is not None
        assert kept.dtype == np.int64
        assert kept.tolist() == expected


def test_a_table_that_begins_with_other_rows_keeps_none(tmp_path: Path) -> None:
    table = Table(tmp_path)
    table.add([3, 4])
    old = table.now
    lance.write_dataset(old.to_table().take([6, 5, 4, 3, 2, 1, 0]), table.path, mode="overwrite")
    assert kept_rows(old, table.now) is None
