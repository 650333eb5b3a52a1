"""The order of frames is checked whole, and in files that are as they were by their ends."""

from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest

from indexer.library.alignment import misalignment

VIDEOS = 12
SEGMENTS = 3
FRAMES = 4


def keys(videos: list[int], *, frames: bool) -> pa.Table:
    """The rows of videos in either table, in order."""
    rows = [
        {"ingest_id": f"{video:016x}", "segment_index": segment}
        | ({"frame_index": frame} if frames else {"num_frames": FRAMES})
        for video in videos
        for segment in range(SEGMENTS)
        for frame in range(FRAMES if frames else 1)
    ]
    return pa.Table.from_pylist(rows)


class Tables:
    """Both tables in files of three videos each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for first in range(0, VIDEOS, 3):
            self.append(list(range(first, first + 3)))

    def append(self, segments: list[int], frames: list[int] | None = None) -> None:
        for name, videos in (("segments", segments), ("frames", frames or segments)):
            lance.write_dataset(keys(videos, frames=name == "frames"), self.path(name), mode="append")

    def path(self, name: str) -> str:
        return str(self._folder / f"{name}.lance")

    def delete(self, videos: list[int], *names: str) -> None:
        listed = ", ".join(f"'{video:016x}'" for video in videos)
        for name in names or ("segments", "frames"):
            lance.dataset(self.path(name)).delete(f"ingest_id IN ({listed})")

    def problem(self, version: int | None = None) -> str | None:
        """Of the tables now, known to be in order in a version of `frames`."""
        aligned = None if version is None else lance.dataset(self.path("frames"), version=version)
        segments, frames = (lance.dataset(self.path(name)) for name in ("segments", "frames"))
        return misalignment(segments, frames, aligned)

    @property
    def version(self) -> int:
        return int(lance.dataset(self.path("frames")).version)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(tmp_path)


def test_rows_that_come_and_go_together_are_in_order(tables: Tables) -> None:
    known = tables.version
    tables.append([20, 21])
    tables.delete([0, 4, 11])
    tables.append([22])
    for version in (None, known, tables.version):
        assert tables.problem(version) is None


@pytest.mark.parametrize("deleted", [[0], [4], [11], [20], [3, 4, 5]], ids=str)
@pytest.mark.parametrize("name", ["segments", "frames"])
def test_rows_of_one_table_alone_are_noticed(tables: Tables, deleted: list[int], name: str) -> None:
    known = tables.version
    tables.append([20, 21])
    tables.delete(deleted, name)
    assert tables.problem() is not None
    assert tables.problem(known) is not None
    # Two videos instead of one, of other tables: as many rows in both.
    tables.delete(
        [6] if deleted != [3, 4, 5] else [6, 7, 8], {"segments": "frames", "frames": "segments"}[name]
    )
    assert tables.problem() is not None
    assert tables.problem(known) is not None


def test_new_rows_in_another_order_are_noticed(tables: Tables) -> None:
    known = tables.version
    tables.append([20, 21, 22], [20, 22, 21])
    assert tables.problem(known) == tables.problem() == "frames are not in the order of their segments"


def test_frames_of_a_segment_in_another_order_are_noticed(tables: Tables) -> None:
    known = tables.version
    lance.write_dataset(keys([30], frames=False), tables.path("segments"), mode="append")
    order = np.arange(SEGMENTS * FRAMES)
    order[[1, 2]] = order[[2, 1]]
    lance.write_dataset(keys([30], frames=True).take(order), tables.path("frames"), mode="append")
    assert tables.problem(known) == tables.problem() == "a segment's frames are not in order"
