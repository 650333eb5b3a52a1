"""Libraries of bundles that say nothing of single frames: the tables have no salience, and all else works."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from indexer.library.folder import Library
from indexer.library.schema import Layout
from indexer.library.snapshot import Snapshot
from indexer.library.tables import open_table
from indexer.library.verify import verify_library
from tests.indexer.library.test_repair import damage_value
from tests.support.command_line import invoke
from tests.support.toy_bundle import DIM, colour_embedding
from tests.support.toy_library import ToyLibrary, data_file, make_library

FILMS = {"red.mp4": [("red", 2.0)], "long.mp4": [("black", 24.0), ("cyan", 24.0), ("white", 24.0)]}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(tmp_path_factory.mktemp("plain"), FILMS, video=True)


def test_the_column_is_left_out(toy: ToyLibrary) -> None:
    layout = Layout.of_schema(open_table(toy.library, "segments").schema)
    assert (layout.salience_dim, layout.frames_per_segment, layout.tokens) == (0, 16, "none")
    assert layout == Library.open(toy.library).layout
    assert "frame_salience" not in layout.schema("segments").names
    assert verify_library(toy.library).ok
    snapshot = Snapshot.open(toy.library)
    assert snapshot.salience_dim == 0
    frames = snapshot.segment_frames(range(snapshot.num_segments))
    assert frames.salience.shape == (snapshot.num_segments, 16, 0)
    assert (frames.counts >= 1).all()
    (row,) = snapshot.segment_rows(next(v.video_id for v in snapshot.videos(0, 9) if "red" in v.path))
    assert snapshot.segments([int(row)])[0].frame_salience.shape == (frames.counts[row], 0)
    vectors = snapshot.index.vectors(np.array([row]))
    assert vectors is not None
    np.testing.assert_allclose(vectors[0, :DIM], colour_embedding("red"), atol=0.02)


def test_damage_is_found_and_repaired(toy: ToyLibrary, tmp_path: Path) -> None:
    home = ToyLibrary(toy.media, Path(shutil.copytree(toy.library, tmp_path / "library")), toy.bundle)
    segments = Snapshot.open(home.library).num_segments
    path = data_file(home.library, "segments")
    stored = open_table(home.library, "segments").to_table(columns=["embedding"])["embedding"][0].as_py()
    damage_value(path, np.asarray(stored, np.float32).tobytes())
    assert not verify_library(home.library).ok
    result = invoke("index", home.media, "--repair", "--workers", "1", *home.options)
    assert result.exit_code == 0, result.stderr
    assert verify_library(home.library).ok
    assert Snapshot.open(home.library).num_segments == segments
