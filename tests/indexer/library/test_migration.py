"""A library made by the version before, in which a video was a path, is brought to this one in place.

`tests/golden/former_library.tar.xz` was written by that version (commit 9c400d2): a library with two
generations of five files, two of which are copies and one of which is no video, both bundles, and the files.
"""

import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from indexer.library.errors import LibraryError
from indexer.library.manifest import current_number, snapshot_numbers
from indexer.library.migration import is_former, migrate, undo_migration
from indexer.library.snapshot import Snapshot
from indexer.library.switching import publish_generation, rollback
from indexer.library.tables import open_table
from indexer.library.verify import verify_library
from indexer.options import IndexOptions
from indexer.run import index_paths
from model.runtime.bundle import Bundle
from model.runtime.files import sha256_of
from tests.support.toy_bundle import text_embedding

GOLDEN = Path(__file__).parents[2] / "golden/former_library.tar.xz"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Holds `library`, `media`, `bundle` and `next_bundle`."""
    with tarfile.open(GOLDEN) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def shown(library: Path) -> list[tuple[list[str], str, int]]:
    """The videos of the snapshot that is served: their paths, verdicts and numbers of segments."""
    videos = Snapshot.open(library).videos(0, 99)
    return [([str(file.path) for file in v.files], v.verdict, v.num_segments) for v in videos]


AFTER = [
    (["/srv/reelfind-media/a/blue.mp4"], "ok", 1),
    (["/srv/reelfind-media/a/red.mp4", "/srv/reelfind-media/copy of red.mp4"], "ok", 2),
    (["/srv/reelfind-media/green.mp4"], "ok", 1),
    (["/srv/reelfind-media/noise.mp4"], "corrupt", 0),
]


def test_it_is_refused_with_the_remedy_until_it_is_migrated(home: Path) -> None:
    library = home / "library"
    assert is_former(library)
    with pytest.raises(
        LibraryError, match=r"earlier version .*`reelfind library migrate --library \S+library`"
    ):
        Snapshot.open(library)


def test_contents_become_videos_and_nothing_is_read_again(home: Path) -> None:
    library = home / "library"
    first, second = migrate(library)
    assert (first.files, first.videos, first.snapshot, second.snapshot) == (5, 4, 3, 4)
    assert shown(library) == AFTER
    assert verify_library(library).ok
    snapshot = Snapshot.open(library)
    by_name = {video.file.name: video for video in snapshot.videos(0, 9)}
    assert by_name["blue.mp4"].video_id == sha256_of(home / "media/a/blue.mp4")[:32]
    _, rows = snapshot.search(text_embedding("blue")[None], 1)
    (segment,) = snapshot.segments(rows[0])
    assert segment.video_id == by_name["blue.mp4"].video_id
    assert snapshot.thumbnail(segment.frame_ids[0])
    assert [line.text for line in snapshot.find_lines("said in blue", 1)] == ["said in blue"]
    assert migrate(library) == []
    assert publish_generation(library) == 4
    assert shown(library) == AFTER
    assert verify_library(library).ok


def test_indexing_migrates_and_knows_the_files_by_their_content(home: Path) -> None:
    """The media are elsewhere now: all of them are recognised, and none is decoded."""
    bundle = Bundle.open(home / "bundle")
    (home / "media/new.mp4").write_bytes((home / "media/green.mp4").read_bytes() + b"\0\0\0\x08free")
    options = IndexOptions(workers=0)
    summary = index_paths([home / "media"], home / "library", bundle, options, lambda _: None)
    assert (summary.recognised, summary.verdicts, summary.num_videos) == (5, {"ok": 1}, 4)
    assert verify_library(home / "library").ok
    layout = open_table(home / "library", "segments").schema.names
    assert "video_id" in layout, "the table is not written again"
    for video in Snapshot.open(home / "library").videos(0, 9):
        assert video.file.is_relative_to(home / "media"), "where it is comes before where it was"
        assert [file.path.exists() for file in video.files] == [
            not file.missing_since for file in video.files
        ]
    # Once: what tells whether subtitles are the same is computed otherwise now.
    index_paths([home / "media"], home / "library", bundle, options, lambda _: None)
    again = index_paths([home / "media"], home / "library", bundle, options, lambda _: None)
    assert (again.unchanged, again.published) == (6, False)


def test_undoing_returns_to_the_snapshot_from_before(home: Path) -> None:
    library = home / "library"
    before = {
        name: open_table(library, name).to_table() for name in ("videos", "segments", "frames", "texts")
    }
    migrate(library)
    reader = Snapshot.open(library)
    with pytest.raises(LibraryError, match=r"snapshot 3 .* is being read"):
        undo_migration(library)
    del reader
    assert undo_migration(library) == 1
    assert snapshot_numbers(library) == [1, 2]
    for name, table in before.items():
        assert open_table(library, name).to_table().equals(table)
    assert not (library / "files.lance").exists()
    migrate(library)
    assert shown(library) == AFTER
    assert verify_library(library).ok


def test_a_rollback_does_not_go_behind_the_migration(home: Path) -> None:
    library = home / "library"
    migrate(library)
    with pytest.raises(LibraryError, match="--undo` returns to it"):
        rollback(library, 1)
    with pytest.raises(LibraryError, match="no whole snapshot before snapshot 3"):
        rollback(library)


_MIGRATE = "import sys; from indexer.library.migration import migrate; migrate(sys.argv[1])"


@pytest.mark.slow
def test_a_kill_at_any_step_leaves_a_library_that_the_next_migration_completes(home: Path) -> None:
    log = home / "points"
    shutil.copytree(home / "library", home / "plain")
    run(home / "plain", REELFIND_FAULT_LOG=str(log))
    reached = dict.fromkeys(log.read_text().split())
    assert {"migrate.files", "migrated.videos", "publish.rename", "current.renamed"} <= reached.keys()
    for point in reached:
        library = home / "killed"
        shutil.copytree(home / "library", library)
        assert run(library, REELFIND_FAULT=f"kill {point} 1") == -signal.SIGKILL, point
        if current_number(library) == 1:
            with pytest.raises(LibraryError, match="earlier version"):
                Snapshot.open(library)
        migrate(library)
        assert shown(library) == AFTER, point
        assert verify_library(library).ok, point
        assert publish_generation(library) > 2, point
        assert shown(library) == AFTER, point
        shutil.rmtree(library)


def run(library: Path, **fault: str) -> int:
    command = [sys.executable, "-c", _MIGRATE, str(library)]
    return subprocess.run(command, env=os.environ | fault, check=False, capture_output=True).returncode
