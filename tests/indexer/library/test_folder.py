"""Libraries on disk: damage, verify, rollback, locks, snapshots that stay as they are."""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.library.catalog import VideoLabel
from indexer.library.errors import BusyError, LibraryError
from indexer.library.folder import Library
from indexer.library.manifest import current_number, read_snapshot_manifest, snapshot_numbers
from indexer.library.snapshot import Snapshot
from indexer.library.switching import rollback
from indexer.library.verify import verify_library
from indexer.options import IndexOptions
from indexer.run import index_paths
from model.runtime.bundle import Bundle
from tests.support.toy_bundle import make_toy_bundle, text_embedding
from tests.support.toy_videos import make_video


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy"))


@pytest.fixture(scope="module")
def template(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with media and a library of three snapshots: red, then also green, then also blue."""
    home = tmp_path_factory.mktemp("template")
    for colour in ("red", "green", "blue"):
        make_video(home / f"media/{colour}.mp4", parts=[(colour, 0.5)])
        run(bundle, home)
    return home


@pytest.fixture
def library(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template / "library", tmp_path / "library")
    return tmp_path / "library"


def run(bundle: Bundle, home: Path, **options: Any) -> None:
    chosen = IndexOptions(**{"workers": 0, **options})
    index_paths([home / "media"], home / "library", bundle, chosen, lambda _: None)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def names(snapshot: Snapshot) -> list[str]:
    return [video.file.stem for video in snapshot.videos(0, 100)]


def test_a_whole_library_verifies(library: Path) -> None:
    report = verify_library(library)
    assert report.ok
    assert [s.number for s in report.snapshots if s.current] == [3]
    assert [s.number for s in report.snapshots] == [1, 2, 3]
    assert report.remedy is None
    listed = set(read_snapshot_manifest(library, 3).files)
    assert "snapshots/3/segments.faiss" in listed
    assert {name.split("/")[0] for name in listed} == {
        "snapshots",
        "videos.lance",
        "files.lance",
        "segments.lance",
        "frames.lance",
        "texts.lance",
    }


def test_every_changed_byte_of_a_served_file_is_noticed(library: Path) -> None:
    for name in read_snapshot_manifest(library, 3).files:
        path = library / name
        whole = path.read_bytes()
        flip(path, len(whole) // 2)
        report = verify_library(library)
        assert not report.ok, name
        assert any(str(path) in problem for s in report.snapshots for problem in s.problems)
        assert report.remedy
        with pytest.raises(LibraryError, match=rf"{path.name}.*SHA-256.*reelfind library"):
            Snapshot.open(library)
        path.write_bytes(whole)
    assert verify_library(library).ok


@pytest.mark.parametrize("damage", ["cut", "longer", "missing"])
def test_files_cut_short_or_missing_are_noticed(library: Path, damage: str) -> None:
    path = library / "snapshots/3/segments.faiss"
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] if damage == "cut" else path.read_bytes() + b"\0")
    assert not verify_library(library).ok
    with pytest.raises(LibraryError, match=r"segments\.faiss"):
        Snapshot.open(library)


def test_a_changed_manifest_is_noticed(library: Path) -> None:
    path = library / "snapshots/3/manifest.json"
    text = path.read_text()
    for old, new in [('"num_segments": 3', '"num_segments": 2'), ("{", ""), ("sha256", "sha257")]:
        assert old in text
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(LibraryError, match=r"manifest\.json is damaged.*rollback"):
            Snapshot.open(library)
        assert not verify_library(library).ok


def test_a_manifest_of_a_later_version_is_refused(library: Path) -> None:
    path = library / "snapshots/3/manifest.json"
    body = json.loads(path.read_text())
    body["format_version"] = 99
    path.write_text(json.dumps(body))
    with pytest.raises(LibraryError, match=r"manifest\.json"):
        Snapshot.open(library)


def test_missing_and_half_written_libraries(library: Path, tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match=r"no library at .*reelfind index"):
        Snapshot.open(tmp_path / "none")
    with pytest.raises(LibraryError, match=r"no library at .*reelfind index"):
        Library.open(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(LibraryError, match=r"not a library.*reelfind index"):
        Snapshot.open(tmp_path / "empty")
    (tmp_path / "file").write_text("x")
    with pytest.raises(LibraryError, match="not a folder"):
        Snapshot.open(tmp_path / "file")

    current = library / "CURRENT"
    current.write_text("7\n")
    with pytest.raises(LibraryError, match=r"snapshot 7 is missing.*rollback"):
        Snapshot.open(library)
    current.write_text("../../etc\n")
    with pytest.raises(LibraryError, match=r"CURRENT does not name a snapshot.*rollback --library .* --to"):
        Snapshot.open(library)
    current.unlink()
    with pytest.raises(LibraryError, match=r"no published snapshot.*reelfind index"):
        Snapshot.open(library)


def test_an_index_run_heals_a_broken_current(bundle: Bundle, template: Path, library: Path) -> None:
    (library / "CURRENT").write_text("7\n")
    summary = index_paths([template / "media"], library, bundle, IndexOptions(workers=0), lambda _: None)
    assert (summary.unchanged, summary.published, summary.num_segments) == (3, True, 3)
    assert summary.snapshot == current_number(library)
    assert summary.snapshot not in (1, 2, 3)
    assert Snapshot.open(library).num_videos == 3


@pytest.mark.parametrize("damage", ["changed", "cut", "gone"])
def test_an_index_run_heals_a_damaged_index(
    bundle: Bundle, template: Path, library: Path, damage: str
) -> None:
    before = Snapshot.open(library)
    expected = before.search(text_embedding("red")[None], 10)
    (name,) = before.manifest.index_files
    path = library / name
    if damage == "gone":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content if damage == "changed" else content[:-1])
    number = before.number
    del before  # or the damaged snapshot would be kept
    assert "`reelfind index`" in (verify_library(library).remedy or "")
    summary = index_paths([template / "media"], library, bundle, IndexOptions(workers=0), lambda _: None)
    assert summary.published
    assert verify_library(library).ok
    healed = Snapshot.open(library)
    assert healed.number > number
    scores, rows = healed.search(text_embedding("red")[None], 10)
    np.testing.assert_array_equal(scores, expected[0])
    np.testing.assert_array_equal(rows, expected[1])


def test_rollback_serves_the_one_before_and_indexing_goes_on_from_it(
    bundle: Bundle, template: Path, library: Path
) -> None:
    assert rollback(library) == 2
    assert names(Snapshot.open(library)) == ["green", "red"]
    assert rollback(library) == 1
    assert names(Snapshot.open(library)) == ["red"]
    assert verify_library(library).ok
    assert rollback(library, to=3) == 3
    assert rollback(library, to=1) == 1
    summary = index_paths([template / "media"], library, bundle, IndexOptions(workers=0), lambda _: None)
    assert (summary.unchanged, summary.verdicts, summary.snapshot) == (1, {"ok": 2}, 4)
    assert names(Snapshot.open(library)) == ["blue", "green", "red"]
    assert verify_library(library).ok


def test_rollback_refuses_what_cannot_be_served(library: Path, tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match=r"no snapshot 9: choose one of 1, 2, 3"):
        rollback(library, to=9)
    flip(library / "snapshots/2/segments.faiss", 40)
    with pytest.raises(LibraryError, match=r"snapshot 2 is damaged.*segments\.faiss"):
        rollback(library, to=2)
    assert current_number(library) == 3
    assert rollback(library) == 1
    with pytest.raises(LibraryError, match="no whole snapshot before"):
        rollback(library)
    with pytest.raises(LibraryError, match="no library"):
        rollback(tmp_path / "none")


def test_rollback_mends_a_broken_current(library: Path) -> None:
    (library / "CURRENT").write_text("\0\0")
    assert rollback(library, to=2) == 2
    assert names(Snapshot.open(library)) == ["green", "red"]


def test_an_open_snapshot_stays_as_it_is(bundle: Bundle, template: Path, tmp_path: Path) -> None:
    shutil.copytree(template, tmp_path / "home")
    home = tmp_path / "home"
    before = Snapshot.open(home / "library")
    shown = names(before)
    shutil.rmtree(home / "media")
    make_video(home / "media/white.mp4", parts=[("white", 0.5)])
    run(bundle, home, prune=True)
    after = Snapshot.open(home / "library")
    assert after.number > before.number
    assert names(after)[-1:] == ["white"]
    assert names(before) == shown
    for segment in before.segments(range(before.num_segments)):
        assert before.thumbnail(segment.frame_ids[0])


def test_old_snapshots_go_and_with_them_the_files_only_they_need(bundle: Bundle, tmp_path: Path) -> None:
    for i in range(5):
        make_video(tmp_path / "media/only.mp4", parts=[("red", 0.2 * (i + 1))])
        run(bundle, tmp_path, keep_snapshots=2, keep_seconds=0.0)
    library = tmp_path / "library"
    assert snapshot_numbers(library) == [4, 5]
    assert verify_library(library).ok
    needed = {name for n in (4, 5) for name in read_snapshot_manifest(library, n).files}
    data = {os.fspath(p.relative_to(library)) for p in library.glob("*.lance/data/*.lance")}
    assert data == {name for name in needed if "/data/" in name}


def test_one_writer_at_a_time(bundle: Bundle, template: Path, library: Path) -> None:
    home = Library.open(library)
    code = (
        "import sys, time; from indexer.library.folder import Library\n"
        "with Library.open(sys.argv[1]).writing(): print('locked', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(library)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(BusyError, match=rf"process {other.pid}: wait"):
            index_paths([template / "media"], library, bundle, IndexOptions(workers=0), lambda _: None)
        with pytest.raises(BusyError):
            rollback(library)
        assert Snapshot.open(library).num_videos == 3
    finally:
        other.kill()
        other.communicate()
    with home.writing():
        pass


def test_the_index_kind_is_kept_and_falls_back_when_there_is_too_little(
    bundle: Bundle, tmp_path: Path
) -> None:
    make_video(tmp_path / "media/a.mp4", parts=[("red", 0.5)])
    run(bundle, tmp_path, index_factory="IVF64,Flat")
    manifest = read_snapshot_manifest(tmp_path / "library", 1)
    assert (manifest.index_factory, manifest.index_requested) == ("Flat", "IVF64,Flat")
    make_video(tmp_path / "media/b.mp4", parts=[("blue", 0.5)])
    run(bundle, tmp_path)
    assert read_snapshot_manifest(tmp_path / "library", 2).index_requested == "IVF64,Flat"
    run(bundle, tmp_path, index_factory="auto")
    assert read_snapshot_manifest(tmp_path / "library", 3).index_requested == "auto"


def test_searching_checks_its_arguments(library: Path) -> None:
    snapshot = Snapshot.open(library)
    with pytest.raises(ValueError, match=r"expected \[B, 8\]"):
        snapshot.search(np.zeros((1, 5), np.float32), 3)
    with pytest.raises(ValueError, match="at least 1"):
        snapshot.search(np.zeros((1, 8), np.float32), 0)
    with pytest.raises(ValueError, match="segment row 3"):
        snapshot.segments([3])
    assert snapshot.segments([]) == []
    assert snapshot.search(text_embedding("red")[None], 1_000_000)[1].shape == (1, 3)
    assert snapshot.video("0" * 16) is None
    assert [v.file.stem for v in snapshot.videos(1, 1)] == ["green"]
    assert snapshot.videos(7, 5) == []


def test_many_threads_read_one_snapshot(library: Path) -> None:
    snapshot = Snapshot.open(library)
    expected = {c: snapshot.search(text_embedding(c)[None], 3)[1].tolist() for c in ("red", "green", "blue")}
    wrong: list[object] = []

    def read(colour: str) -> None:
        for _ in range(20):
            rows = snapshot.search(text_embedding(colour)[None], 3)[1]
            segments = snapshot.segments(rows[0])
            if rows.tolist() != expected[colour] or not snapshot.thumbnail(segments[0].frame_ids[0]):
                wrong.append(colour)

    threads = [threading.Thread(target=read, args=(c,)) for c in list(expected) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_library_path_with_signs_that_mean_something_in_addresses(bundle: Bundle, tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", parts=[("red", 0.3)])
    for name in ("100% #1 ?", "s3:bucket", "Библиотека 🎬"):
        index_paths([tmp_path / "a.mp4"], tmp_path / name, bundle, IndexOptions(workers=0), lambda _: None)
        assert Snapshot.open(tmp_path / name).num_videos == 1
    with pytest.raises(LibraryError, match="not UTF-8"):
        Library.open(Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff")))


def test_a_label_is_what_the_record_says(library: Path) -> None:
    snapshot = Snapshot.open(library)
    for video in snapshot.videos(0, 100):
        assert snapshot.label(video.video_id) == VideoLabel(
            video.path, video.title, video.container_start_seconds, video.missing, video.recording
        )
    assert snapshot.label("0" * 32) is None
