"""Finding videos in folders."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from indexer.ignore import IGNORE_FILE
from indexer.library.records import stored_ns
from indexer.scan import FileFacts, scan, scan_changes
from model.runtime.errors import InputError


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
    assert scanned.files == [tmp_path / "elsewhere/far.mkv", tmp_path / "media/a/clip.mp4"]


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


def test_what_is_passed_over_is_counted_and_listed_on_demand(tmp_path: Path) -> None:
    (tmp_path / "app.ts").write_text("export const answer = 42;\n")
    names = ["a.jpg", "b.JPG", "README", ".trash/old.mp4", "x.mp4", "Dr. No", "sub/c.txt"]
    touch(*(tmp_path / name for name in names))
    expected = {
        ".jpg": 2,
        "no extension": 1,
        "hidden": 1,
        "another extension": 1,
        ".txt": 1,
        ".ts that is no video": 1,
    }
    counted = scan([tmp_path])
    assert (counted.passed_over, counted.passed_over_files) == (expected, [])
    listed = scan([tmp_path], list_passed_over=True)
    assert listed.passed_over == expected
    assert {(str(path.relative_to(tmp_path)), kind) for path, kind in listed.passed_over_files} == {
        ("a.jpg", ".jpg"),
        ("b.JPG", ".jpg"),
        ("README", "no extension"),
        (".trash", "hidden"),
        ("Dr. No", "another extension"),
        ("sub/c.txt", ".txt"),
        ("app.ts", ".ts that is no video"),
    }


def test_what_is_no_film_of_ones_own_is_left_out(tmp_path: Path) -> None:
    left_out = [
        *("DCIM/GX010001.LRV", "DCIM/GX010001.THM", "DJI_0001.LRF", "LRV_20240101_000000_01_001.insv"),
        *("PRIVATE/M4ROOT/SUB/C0001S03.MP4", "@eaDir/a.mp4/SYNO.mp4", "#recycle/a.mp4", "$RECYCLE.BIN/a.mp4"),
        *("System Volume Information/a.mp4", ".Trash-1000/files/a.mp4", "._a.mp4", ".hidden/a.mp4"),
        *("a.mp4.part", "a.mkv.crdownload", "a.mkv.!qB", "a.tmp"),
    ]
    kept = [tmp_path / name for name in ("DCIM/GX010001.MP4", "PRIVATE/M4ROOT/CLIP/C0001.MP4", "SUB/a.mp4")]
    touch(*(tmp_path / name for name in left_out), *kept)
    scanned = scan([tmp_path], list_passed_over=True)
    assert scanned.files == sorted(kept)
    assert scanned.passed_over == {
        "small copy made by a camera": 5,
        "folder of the system": 4,
        "hidden": 3,
        "unfinished download": 4,
    }
    assert all(scanned.leaves_out(tmp_path / name) for name in left_out)
    assert not any(scanned.leaves_out(path) for path in kept)


def test_rules_of_folders_and_options(tmp_path: Path) -> None:
    names = ["a.mp4", "b.mp4", "x/a.mp4", "x/b.mp4", "x/y/b.mp4", "x/GX01.LRV", "drafts/a.mp4", ".h/a.mp4"]
    touch(*(tmp_path / name for name in names))
    (tmp_path / ".reelfindignore").write_text("b.mp4\n!.h/\n")
    (tmp_path / "x/.reelfindignore").write_text("!/b.mp4\n")

    def found(**options: list[str]) -> set[str]:
        scanned = scan([tmp_path], **options)  # type: ignore[arg-type]
        assert IGNORE_FILE not in {path.name for path in scanned.left_out}
        return {str(path.relative_to(tmp_path)) for path in scanned.files}

    assert found() == {"a.mp4", "x/a.mp4", "x/b.mp4", "drafts/a.mp4", ".h/a.mp4"}
    assert found(exclude=["drafts/", "/x/a.mp4"]) == {"a.mp4", "x/b.mp4", ".h/a.mp4"}
    assert found(include=["*.LRV"], exclude=["*"]) == set()
    assert found(include=["*.LRV", "*/"], exclude=["*"]) == {"x/GX01.LRV"}
    # What is given is taken, and rules hold below it.
    assert scan([tmp_path / ".h", tmp_path / "x/y", tmp_path / "x/GX01.LRV"]).files == [
        tmp_path / ".h/a.mp4",
        tmp_path / "x/GX01.LRV",
    ]


def test_rules_hold_for_links_by_their_names(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere/a.mp4", tmp_path / "elsewhere/b.mp4")
    (tmp_path / "media").mkdir()
    for name, target in (("drafts", "elsewhere"), ("c.mp4", "elsewhere/a.mp4"), ("d.mp4", "elsewhere/b.mp4")):
        (tmp_path / "media" / name).symlink_to(tmp_path / target)
    (tmp_path / "media/e.mp4").symlink_to(tmp_path / "nowhere")
    scanned = scan([tmp_path / "media"], exclude=["drafts/", "c.mp4", "e.mp4"])
    assert (scanned.files, scanned.problems) == ([tmp_path / "media/d.mp4"], [])


def test_a_gif_of_one_picture_is_no_video(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (40, 30), colour) for colour in ("red", "green", "blue")]
    pictures[0].save(tmp_path / "still.gif")
    pictures[0].save(tmp_path / "moving.gif", save_all=True, append_images=pictures[1:], comment=b"," * 700)
    (tmp_path / "cut.gif").write_bytes((tmp_path / "still.gif").read_bytes()[:50])
    (tmp_path / "no gif.gif").write_bytes(b"\0" * 100)
    scanned = scan([tmp_path])
    assert [path.name for path in scanned.files] == ["moving.gif", "no gif.gif"]
    assert scanned.passed_over == {".gif that is a still picture": 2}


def test_a_scan_of_changes_finds_what_a_whole_scan_finds_there(tmp_path: Path) -> None:
    media, elsewhere = tmp_path / "media", tmp_path / "elsewhere"
    names = [
        "a.mp4",
        "x/b.mp4",
        "x/y/c.mp4",
        "x/y/c.en.srt",
        "x/y/d.txt",
        "drafts/e.mp4",
        ".h/f.mp4",
        "x/g.LRV",
    ]
    touch(*(media / name for name in names), elsewhere / "far/h.mp4", elsewhere / "i.mp4")
    (media / "x/.reelfindignore").write_text("b.*\n!g.LRV\n")
    (media / "link").symlink_to(elsewhere / "far")
    (media / "x/one.mp4").symlink_to(elsewhere / "i.mp4")
    whole = scan([media], exclude=["drafts/"])
    assert len(whole.files) == 5
    everything = [media, *media.rglob("*"), media / "link/h.mp4"]
    for changed in everything:
        found = scan_changes([changed], [media], exclude=["drafts/"])
        real = changed.resolve() if changed.name in ("link", "h.mp4") else changed
        if changed.name == ".reelfindignore":
            real = changed.parent
        expected = [path for path in whole.files if path.is_relative_to(real)]
        if changed.name.endswith(".srt"):
            expected = [media / "x/y/c.mp4"]
        if changed == media / "x/y" or changed == media / "x" or changed == media:
            assert found.subtitles == whole.subtitles
        assert found.files == sorted({*expected, *([elsewhere / "far/h.mp4"] if changed == media else [])})
        assert all(found.facts[path] == whole.facts[path] for path in found.files)
        assert found.folders == [media]
    assert scan_changes([media / "x/y/c.mp4"], [media]).subtitles == whole.subtitles
    assert scan_changes(everything, [media], exclude=["drafts/"]).files == whole.files
    assert scan_changes([elsewhere / "i.mp4"], [media]).files == []


def test_changes_that_took_something_away_are_covered(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4")
    scanned = scan_changes([tmp_path / "gone.mp4", tmp_path / ".gone.mp4.Xy12"], [tmp_path])
    assert (scanned.files, scanned.covered) == ([], [tmp_path / "gone.mp4"])
    lost = scan_changes([tmp_path / "none"], [tmp_path / "none"])
    assert [path for path, _ in lost.problems] == [tmp_path / "none"]


def test_facts_are_those_of_the_file(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4", tmp_path / "b.mp4")
    os.utime(tmp_path / "a.mp4", ns=(0, 1_234_567_890_123_456_789))
    facts = scan([tmp_path]).facts
    assert facts[tmp_path / "a.mp4"] == FileFacts(1, 1_234_567_890_123_456_789, tmp_path.stat().st_dev)
    # 2399-01-01 is 13,537,929,600 seconds after 1970: 64 signed bits of nanoseconds end at 9,223,372,036.
    far = 13_537_929_600 * 10**9
    os.utime(tmp_path / "b.mp4", ns=(0, far))
    if (tmp_path / "b.mp4").stat().st_mtime_ns == far:
        assert scan([tmp_path]).facts[tmp_path / "b.mp4"].mtime_ns == far - 2**64


def test_times_out_of_range_stay_different_from_each_other() -> None:
    times = [-(2**63), -1, 0, 2**63 - 1, 2**63, 2**63 + 1, 15_032_385_535 * 10**9]  # ext4 ends in 2446
    stored = [stored_ns(time) for time in times]
    assert stored[:4] == times[:4]
    assert len(set(stored)) == len(stored) - 1  # 2**63 is the first to come round: to -(2**63)
    assert all(-(2**63) <= time < 2**63 for time in stored)


def without_privileges(code: str, *arguments: object) -> str:
    """The output of Python code that may not read what its owner forbids, even if the tests run as root."""
    command = [sys.executable, "-P", "-c", code, *map(str, arguments)]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may read everything, and there is no setpriv")
        lost = "-dac_override,-dac_read_search"
        command = ["setpriv", f"--inh-caps={lost}", f"--bounding-set={lost}", *command]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


SCAN = """
import sys
from pathlib import Path
from indexer.scan import scan
root = Path(sys.argv[1])
found = scan([root])
problems = [(str(path.relative_to(root)), reason) for path, reason in found.problems]
print([str(path.relative_to(root)) for path in found.files], problems)
"""


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        (0o444, "may be listed but not entered: Permission denied"),
        (0o111, "Permission denied"),
        (0o000, "Permission denied"),
    ],
)
def test_a_folder_that_may_not_be_listed_or_entered_costs_only_itself(
    tmp_path: Path, mode: int, reason: str
) -> None:
    touch(*(tmp_path / name for name in ("a/1.mp4", "shut/2.mp4", "shut/3.mp4", "shut/x.txt", "z/4.mp4")))
    (tmp_path / "shut").chmod(mode)
    try:
        output = without_privileges(SCAN, tmp_path)
    finally:
        (tmp_path / "shut").chmod(0o755)
    assert output.strip() == f"['a/1.mp4', 'z/4.mp4'] [('shut', '{reason}')]"


def test_a_path_that_is_too_long_is_reported(tmp_path: Path) -> None:
    """Linux takes paths of 4,095 bytes: longer ones can be made, and opened, only from within."""
    touch(tmp_path / "good.mp4")
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(25):
            os.mkdir("d" * 200, dir_fd=here)
            below = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
            os.close(os.open("f" * 200 + ".mp4", os.O_CREAT, dir_fd=here))
    finally:
        os.close(here)
    scanned = scan([tmp_path])
    fits = (4095 - len(os.fsencode(tmp_path)) - 205) // 201
    assert len(scanned.files) == 1 + fits
    # The next file; if the folder beside it still fits, the file in that one; and the first folder too long.
    assert {reason for _, reason in scanned.problems} == {"File name too long"}
    assert 2 <= len(scanned.problems) <= 3
    assert scan([tmp_path / "good.mp4"]).files == [tmp_path / "good.mp4"]
    subprocess.run(["rm", "-rf", tmp_path / ("d" * 200)], check=True)


def test_what_disappears_during_the_scan_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "a.mp4", tmp_path / "b.mp4", tmp_path / "sub/c.mp4", tmp_path / "sub2/d.mp4")
    real = os.scandir
    done: list[bool] = []

    class Listing:
        """What `os.scandir` gives; when the folder has been listed, some of it is gone."""

        def __init__(self, folder: Path) -> None:
            self._entries = real(folder)

        def __enter__(self) -> "Listing":
            return self

        def __exit__(self, *_: object) -> None:
            self._entries.close()
            if not done:
                done.append(True)
                (tmp_path / "a.mp4").unlink()
                shutil.rmtree(tmp_path / "sub")

        def __iter__(self) -> Iterator[os.DirEntry[str]]:
            return iter(self._entries)

    monkeypatch.setattr(os, "scandir", Listing)
    scanned = scan([tmp_path])
    assert scanned.files == [tmp_path / "b.mp4", tmp_path / "sub2/d.mp4"]
    assert sorted(scanned.problems) == [
        (tmp_path / "a.mp4", "No such file or directory"),
        (tmp_path / "sub", "No such file or directory"),
    ]


def test_a_missing_path_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nope\.mp4"):
        scan([tmp_path, tmp_path / "nope.mp4"])
