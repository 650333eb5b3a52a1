"""Frames are found by their ids, and segments' embeddings by their rows, in a library of real films."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from indexer.library.snapshot import Snapshot
from tests.support.toy_library import make_library


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return Snapshot.open(make_library(tmp_path_factory.mktemp("places")).library)


def test_a_frame_is_where_its_id_says(snapshot: Snapshot) -> None:
    rows = np.arange(snapshot.num_segments)
    for segment in snapshot.segments(rows):
        places = [snapshot.frame_place(frame_id) for frame_id in segment.frame_ids]
        assert places == [(segment.row, place) for place in range(len(segment.frame_ids))]
        assert all(snapshot.thumbnail(frame_id) for frame_id in segment.frame_ids)
        beyond = f"{segment.video_id}-{segment.segment_index:05d}-{len(segment.frame_ids):02d}"
        for unknown in (beyond, f"{segment.frame_ids[0]}-0123456789ab", "nothing", "0" * 32 + "-00000-00"):
            assert snapshot.frame_place(unknown) is None
            assert snapshot.thumbnail(unknown) is None


def test_embeddings_are_those_of_the_index_in_any_order(snapshot: Snapshot) -> None:
    rows = np.array([2, 0, 2, snapshot.num_segments - 1])
    stored, indexed = snapshot.segment_embeddings(rows), snapshot.index.vectors(rows)
    assert indexed is not None
    np.testing.assert_array_equal(stored, indexed)
    assert snapshot.segment_embeddings([]).shape == (0, snapshot.embedding_dim)
    with pytest.raises(ValueError, match="is not in 0"):
        snapshot.segment_embeddings([snapshot.num_segments])


def test_a_label_names_no_place_that_is_not_shown(tmp_path: Path) -> None:
    toy = make_library(tmp_path, films={"private/red.mp4": [("red", 2.0)]})
    (toy.media / "shared").mkdir()
    shutil.copy(toy.media / "private" / "red.mp4", toy.media / "shared" / "copy.mp4")
    toy.index()
    catalog = Snapshot.open(toy.library).catalog
    video_id = catalog.id_at(0)
    is_shared = np.array([b"/shared/" in path for path in catalog.paths[1].to_pylist()])
    for _ in range(2):
        for mask, name in ((~is_shared, "private/red.mp4"), (is_shared, "shared/copy.mp4")):
            label = catalog.showing(mask).label(video_id)
            assert label is not None
            assert label.path.endswith(name)
        whole = catalog.label(video_id)
        assert whole is not None
        assert whole.path.endswith("private/red.mp4")
