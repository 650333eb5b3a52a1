"""Rows that are kept in memory: the same as those that are read, of this snapshot and of those after it."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from indexer.library.errors import DamagedRowsError, LibraryError
from indexer.library.row_cache import RowCache
from indexer.library.snapshot import Snapshot
from tests.support.crafted_library import change_table
from tests.support.toy_library import ToyLibrary, data_file, make_library

PLENTY = 64 << 20


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def copied(toy: ToyLibrary, tmp_path: Path) -> ToyLibrary:
    shutil.copytree(toy.library, tmp_path / "library")
    return ToyLibrary(toy.media, tmp_path / "library", toy.bundle)


class Counts(Counter[tuple[str, str]]):
    """How many rows were kept and how many were not, by table."""

    def __call__(self, table: str, hits: int, misses: int) -> None:
        self[table, "hit"] += hits
        self[table, "miss"] += misses


def open_with(library: Path, cache: RowCache) -> Snapshot:
    snapshot = Snapshot.open(library)
    snapshot.keep_rows(cache)
    return snapshot


def read(snapshot: Snapshot, rows: list[int]) -> list[bytes]:
    """All that searches read of segments: what is stored of their frames, their embeddings, and tokens."""
    frames = snapshot.segment_frames(rows)
    places = [(row, place) for row, count in zip(rows, frames.counts, strict=True) for place in range(count)]
    tokens = snapshot.frame_tokens([row for row, _ in places], [place for _, place in places])
    parts = frames.pts_seconds, frames.salience, tokens, snapshot.segment_embeddings(rows)
    return [f"{part.dtype} {part.shape}".encode() + part.tobytes() for part in parts]


def by_video(snapshot: Snapshot) -> dict[str, list[bytes]]:
    """What is read of each video, by its id."""
    ids = {snapshot.video_id_of(row) for row in range(snapshot.num_segments)}
    return {video_id: read(snapshot, snapshot.segment_rows(video_id).tolist()) for video_id in ids}


@pytest.mark.parametrize("max_bytes", [0, 40_000, PLENTY])
def test_rows_are_those_that_are_read(toy: ToyLibrary, max_bytes: int) -> None:
    plain, cache = Snapshot.open(toy.library), RowCache(max_bytes)
    kept = open_with(toy.library, cache)
    rng = np.random.default_rng(4)
    for _ in range(30):
        # In any order, some of them twice, some known and some not.
        rows = rng.integers(0, plain.num_segments, int(rng.integers(1, 9))).tolist()
        assert read(kept, rows) == read(plain, rows)
        assert cache.num_bytes <= max_bytes
    assert (cache.num_bytes > 0) == (max_bytes > 0)


def test_what_is_kept_is_not_read_again(copied: ToyLibrary) -> None:
    counts = Counts()
    snapshot = open_with(copied.library, RowCache(PLENTY, counts))
    before = read(snapshot, [0, 2])
    first = Counts(counts)
    assert first["segments", "hit"] == first["frames", "hit"] == 0
    for table in ("segments", "frames"):
        data_file(copied.library, table).unlink()
    assert read(snapshot, [0, 2]) == before
    for table in ("segments", "frames"):
        assert counts[table, "hit"] == counts[table, "miss"] == first[table, "miss"] > 0
    with pytest.raises(LibraryError):
        read(snapshot, [0, 1])


def test_the_rows_that_were_not_used_for_longest_go_first(toy: ToyLibrary) -> None:
    counts = Counts()
    size = RowCache(PLENTY)
    open_with(toy.library, size).segment_frames([0])
    # Room for two segments.
    snapshot = open_with(toy.library, RowCache(2 * size.num_bytes, counts))
    for row in (0, 1, 0, 2, 0, 1):
        snapshot.segment_frames([row])
    # 0 and 1 are read first, 2 takes the place of 1, and 1 that of 2.
    assert counts == {("segments", "hit"): 2, ("segments", "miss"): 4}


def test_a_new_snapshot_is_given_no_row_of_another(tmp_path: Path) -> None:
    toy = make_library(tmp_path, {"red.mp4": [("red", 1.0)], "green.mp4": [("green", 1.0)]})
    counts = Counts()
    cache = RowCache(PLENTY, counts)
    snapshot = open_with(toy.library, cache)

    def changed() -> Snapshot:
        """The next snapshot, which shows what one shows that keeps nothing."""
        nonlocal snapshot
        before, old = snapshot, by_video(snapshot)
        toy.index()
        counts.clear()
        snapshot = open_with(toy.library, cache)
        assert snapshot.number == before.number + 1
        assert by_video(snapshot) == by_video(Snapshot.open(toy.library)) != old
        assert by_video(before) == old
        return snapshot

    toy.film("new.mp4", [("white", 1.0)])
    assert changed().num_videos == 3
    # Only those of the new video: the others are in the same files as before. Both readings of its segment.
    assert counts["segments", "miss"] == 2
    toy.film("new.mp4", [("blue", 3.0)])
    assert changed().num_videos == 3
    (toy.media / "green.mp4").unlink()
    assert changed().num_videos == 2
    assert counts["segments", "miss"] > 0, "the fragment has one more file"


def test_what_has_no_checksum_is_not_kept(copied: ToyLibrary) -> None:
    for table in ("segments", "frames"):
        change_table(copied.library, table, lambda rows: rows)
    cache = RowCache(PLENTY)
    snapshot = open_with(copied.library, cache)
    assert read(snapshot, [0, 1]) == read(snapshot, [0, 1])
    assert cache.num_bytes == 0
    files = (copied.library / "segments.lance" / "data").glob("*.lance")
    snapshot.distrust([str(path.relative_to(copied.library)) for path in files])
    with pytest.raises(DamagedRowsError):
        snapshot.segment_frames([0])
