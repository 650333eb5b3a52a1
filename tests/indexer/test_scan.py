"""Finding videos in folders."""

import os
from pathlib import Path

import pytest

from indexer.scan import scan
from model.runtime.errors import InputError

needs_user = pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\0")


def test_finds_videos_recursively_by_extension_in_order(tmp_path: Path) -> None:
    videos = [tmp_path / n for n in ("b.mp4", "a/clip.MOV", "a/deep/er/x.3gp", "z.m2ts", "w.WebM")]
    touch(*videos, tmp_path / "notes.txt", tmp_path / "a/cover.jpg", tmp_path / "song.mp3", tmp_path / "mp4")
    scanned = scan([tmp_path])
    assert scanned.files == sorted(videos)
    assert scanned.folders == [tmp_path]
    assert scanned.problems == []


def test_common_containers(tmp_path: Path) -> None:
    common = "3g2 3gp asf avi flv gif m2ts m4v mkv mov mp4 mpeg mpg mts mxf ogv ts vob webm wmv"
    videos = [tmp_path / f"clip.{extension}" for extension in common.split()]
    touch(*videos)
    assert scan([tmp_path]).files == videos


def test_hidden_files_and_folders_are_passed_over_unless_named(tmp_path: Path) -> None:
    hidden = [tmp_path / ".hidden.mp4", tmp_path / ".trash/old.mp4", tmp_path / "a/._clip.mp4"]
    touch(*hidden, tmp_path / "a/clip.mp4")
    assert scan([tmp_path]).files == [tmp_path / "a/clip.mp4"]
    assert scan([hidden[0]]).files == [hidden[0]]


def test_a_named_file_is_taken_whatever_its_extension(tmp_path: Path) -> None:
    touch(tmp_path / "recording.bin")
    scanned = scan([tmp_path / "recording.bin"])
    assert scanned.files == [tmp_path / "recording.bin"]
    assert scanned.folders == [tmp_path]


def test_link_loops_end_and_linked_files_count_once(tmp_path: Path) -> None:
    touch(tmp_path / "media/a/clip.mp4", tmp_path / "elsewhere/far.mkv")
    (tmp_path / "media/a/up").symlink_to(tmp_path / "media")
    (tmp_path / "media/self").symlink_to(tmp_path / "media/self")
    (tmp_path / "media/0 link.mp4").symlink_to("a/clip.mp4")
    (tmp_path / "media/far").symlink_to(tmp_path / "elsewhere")
    scanned = scan([tmp_path / "media"])
    assert scanned.files == [tmp_path / "media/a/clip.mp4", tmp_path / "media/far/far.mkv"]


def test_a_dangling_link_is_reported(tmp_path: Path) -> None:
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    scanned = scan([tmp_path])
    assert scanned.files == []
    assert [path for path, _ in scanned.problems] == [tmp_path / "gone.mp4"]


def test_the_same_file_named_twice_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "a/clip.mp4")
    (tmp_path / "b").symlink_to("a")
    monkeypatch.chdir(tmp_path)
    scanned = scan(["a/clip.mp4", tmp_path, "./b/../a", Path("b/clip.mp4")])
    assert scanned.files == [tmp_path / "a/clip.mp4"]


def test_only_regular_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    touch(tmp_path / "clip.mp4")
    assert scan([tmp_path]).files == [tmp_path / "clip.mp4"]
    with pytest.raises(InputError, match="neither a file nor a folder"):
        scan([tmp_path / "pipe.mp4"])


def test_strange_names(tmp_path: Path) -> None:
    names = [b"two words.mp4", "Привет мир.mkv".encode(), "🎬 #1 %20.mp4".encode(), b"bad\xff\xfe.mp4"]
    paths = [Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)) for name in names]
    touch(*paths)
    assert set(scan([tmp_path]).files) == set(paths)


def test_typescript_is_no_transport_stream(tmp_path: Path) -> None:
    (tmp_path / "app.ts").write_text("export const answer = 42;\n")
    (tmp_path / "clip.ts").write_bytes(b"G\x40\x11\x10\0" + b"\xff" * 600)
    (tmp_path / "empty.ts").write_bytes(b"")
    assert scan([tmp_path]).files == [tmp_path / "clip.ts", tmp_path / "empty.ts"]


def test_a_missing_path_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nope\.mp4"):
        scan([tmp_path, tmp_path / "nope.mp4"])


@needs_user
def test_an_unreadable_folder_is_reported_and_the_rest_scanned(tmp_path: Path) -> None:
    touch(tmp_path / "shut/a.mp4", tmp_path / "open/b.mp4")
    (tmp_path / "shut").chmod(0)
    try:
        scanned = scan([tmp_path])
    finally:
        (tmp_path / "shut").chmod(0o755)
    assert scanned.files == [tmp_path / "open/b.mp4"]
    assert [path for path, _ in scanned.problems] == [tmp_path / "shut"]
