"""What cannot be reached has not changed: shares and files out of reach keep their rows."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from indexer.decode import DecodedSegment, FileUnreached, FileVerdict, decode_file
from indexer.engines.base import Engine
from indexer.events import Event, FileNotReached, FileStarted, IndexSummary, SegmentEncoded
from indexer.library.mounts import known_mounts
from indexer.library.snapshot import Snapshot
from indexer.library.verify import verify_library
from indexer.options import IndexOptions
from indexer.place import unreached_after_failure
from indexer.run import decode_spec, index_paths
from model.runtime.bundle import Bundle
from model.runtime.errors import InputError
from tests.support.clips import ffmpeg
from tests.support.copies import distinct_copy
from tests.support.sequential_engine import SequentialEngine
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_videos import make_video


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy"))


def index(
    bundle: Bundle,
    library: Path,
    *paths: Path,
    on_event: Callable[[Event], None] = lambda _: None,
    engine: Engine | None = None,
    **options: Any,
) -> IndexSummary:
    chosen = IndexOptions(**{"workers": 0, **options})
    return index_paths(paths, library, bundle, chosen, on_event, engine=engine)


def videos(library: Path) -> dict[str, tuple[str, int]]:
    return {v.file.name: (v.verdict, v.num_segments) for v in Snapshot.open(library).videos(0, 50)}


@pytest.mark.parametrize("engine", [None, SequentialEngine()])
@pytest.mark.parametrize("moment", [FileStarted, SegmentEncoded])
def test_a_share_that_goes_away_in_the_middle_of_a_run_keeps_every_row(
    bundle: Bundle, tmp_path: Path, engine: Engine | None, moment: type[Event]
) -> None:
    share, away, library = tmp_path / "share", tmp_path / "away", tmp_path / "library"
    for name in ("a", "b", "c"):
        make_video(share / f"{name}.mp4", parts=[("red", 70.0)], fps=1)
    index(bundle, library, share)
    before = videos(library)
    assert before == {f"{name}.mp4": ("ok", 3) for name in "abc"}
    # One is touched, one is changed, one is new; the share goes away with the first event of its kind.
    os.utime(share / "a.mp4", (5, 5))
    # Longer than what is decoded ahead, so that neither is read to its end before a segment is encoded.
    make_video(share / "b.mp4", parts=[("blue", 40.0), ("white", 40.0)] * 20, fps=1)
    make_video(share / "new.mp4", parts=[("green", 40.0), ("white", 40.0)] * 20, fps=1)
    events: list[Event] = []

    def on_event(event: Event) -> None:
        events.append(event)
        if isinstance(event, moment) and share.exists():
            share.rename(away)

    summary = index(bundle, library, share, on_event=on_event, engine=engine, prune=True)
    lost = {path.name for path, _ in summary.not_reached}
    assert {"b.mp4", "new.mp4"} <= lost
    assert "c.mp4" not in lost
    assert (summary.verdicts.total(), summary.failures, summary.removed, summary.vanished) == (0, [], 0, 0)
    assert {e.path.name for e in events if isinstance(e, FileNotReached)} == lost
    assert all(reason.startswith("cannot be") for _, reason in summary.not_reached)
    assert videos(library) == before
    assert summary.searchable == 3
    assert verify_library(library).ok

    away.rename(share)
    back = index(bundle, library, share)
    assert (back.verdicts, back.unchanged, back.not_reached) == ({"ok": 2}, 2, [])
    assert videos(library) == {**before, "b.mp4": ("ok", 50), "new.mp4": ("ok", 50)}


def test_a_file_that_gives_an_error_when_read_gets_no_row(bundle: Bundle, tmp_path: Path) -> None:
    media, library = tmp_path / "media", tmp_path / "library"
    make_video(media / "good.mp4", parts=[("red", 0.5)])
    # Reading a process's memory at 0, where nothing is mapped, fails with EIO.
    (media / "bad disk.mp4").symlink_to("/proc/self/mem")
    summary = index(bundle, library, media)
    assert [(p.name, r) for p, r in summary.not_reached] == [
        ("bad disk.mp4", "cannot be read: Input/output error")
    ]
    assert videos(library) == {"good.mp4": ("ok", 1)}
    assert summary.verdicts == {"ok": 1}


def test_a_known_file_that_gives_an_error_when_read_keeps_its_segments(
    bundle: Bundle, tmp_path: Path
) -> None:
    media, library = tmp_path / "media", tmp_path / "library"
    clip = make_video(media / "a.mp4", parts=[("red", 0.5)])
    index(bundle, library, media)
    clip.unlink()
    clip.symlink_to("/proc/self/mem")
    for retry, prune in ((False, False), (True, False), (False, True)):
        summary = index(bundle, library, media, retry_failed=retry, prune=prune)
        assert [p.name for p, _ in summary.not_reached] == ["a.mp4"]
        assert videos(library) == {"a.mp4": ("ok", 1)}


def test_a_failure_counts_only_if_the_same_bytes_can_be_read_again(bundle: Bundle, tmp_path: Path) -> None:
    """A share that returns wrong data while a file is decoded, and right data before."""
    clip = tmp_path / "a.mkv"
    noise = "nullsrc=s=160x120:r=5:d=80,geq=lum='random(1)*255':cb=128:cr=128"
    ffmpeg("-f", "lavfi", "-i", noise, "-c:v", "libx264", "-preset", "ultrafast", str(clip))
    job = decode_spec(bundle.manifest, "pyav").job(clip)
    whole = clip.read_bytes()
    stat = clip.stat()

    def damage(content: bytes, *, keep_time: bool) -> object:
        clip.write_bytes(whole)
        os.utime(clip, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        messages = decode_file(job)
        for message in messages:
            if isinstance(message, DecodedSegment):
                break
        clip.write_bytes(content)
        if keep_time:
            os.utime(clip, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        return list(messages)[-1]

    wrong = whole[: len(whole) * 2 // 3] + bytes(len(whole) - len(whole) * 2 // 3)
    assert damage(wrong, keep_time=True) == FileUnreached("cannot be read: it gives other bytes each time")
    # Another program that writes the file changes its time as well: then the next run reads it again.
    assert isinstance(damage(wrong, keep_time=False), FileVerdict)
    assert isinstance(damage(whole, keep_time=False), FileVerdict)


def test_a_file_on_another_disk_than_it_was_found_on_is_not_read(bundle: Bundle, tmp_path: Path) -> None:
    clip = make_video(tmp_path / "a.mp4", parts=[("red", 0.5)])
    spec, device = decode_spec(bundle.manifest, "pyav"), clip.stat().st_dev
    assert isinstance(list(decode_file(spec.job(clip, device=device)))[-1], FileVerdict)
    assert list(decode_file(spec.job(clip, device=device + 1))) == [
        FileUnreached("cannot be reached: another disk is mounted there now")
    ]
    clip.unlink()
    os.mkfifo(clip)
    assert [type(part) for part in decode_file(spec.job(clip))] == [FileUnreached]


def test_after_a_crash_a_file_is_looked_at_once_more(tmp_path: Path) -> None:
    clip = tmp_path / "a.mp4"
    assert "No such file" in (unreached_after_failure(clip, None) or "")
    clip.touch()
    assert unreached_after_failure(clip, None) is None
    clip.write_bytes(b"some")
    assert unreached_after_failure(clip, clip.stat().st_dev) is None
    assert "another disk" in (unreached_after_failure(clip, clip.stat().st_dev + 1) or "")
    clip.unlink()
    clip.symlink_to("/proc/self/mem")
    assert unreached_after_failure(clip, None) == "cannot be read: Input/output error"


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["hang decode.a.mp4 1", "kill decode.a.mp4 1"])
def test_a_decoder_that_hangs_or_dies_with_its_share_decides_nothing(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    share, away, library = tmp_path / "share", tmp_path / "away", tmp_path / "library"
    for name in "ab":
        make_video(share / f"{name}.mp4", parts=[("red", 0.5)])
    index(bundle, library, share)
    for name in "ab":
        os.utime(share / f"{name}.mp4", (5, 5))
    monkeypatch.setenv("REELFIND_FAULT", fault)

    def on_event(event: Event) -> None:
        if isinstance(event, FileStarted) and share.exists():
            share.rename(away)

    summary = index(bundle, library, share, on_event=on_event, workers=1, timeout_seconds=3.0)
    assert {path.name for path, _ in summary.not_reached} == {"a.mp4", "b.mp4"}
    assert (summary.failures, summary.published) == ([], False)
    assert videos(library) == {"a.mp4": ("ok", 1), "b.mp4": ("ok", 1)}


class Disk:
    """A file system of its own that is mounted at a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def mount(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", self.folder], check=True, capture_output=True)

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", self.folder], check=False, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "media/a disk\twith blanks")
    try:
        disk.mount()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("nothing can be mounted here")
    yield disk
    disk.unmount()
    disk.unmount()


def test_a_disk_that_is_not_mounted_loses_nothing_although_other_videos_are_there(
    bundle: Bundle, tmp_path: Path, disk: Disk
) -> None:
    media, library = tmp_path / "media", tmp_path / "library"
    make_video(media / "here.mp4", parts=[("red", 0.5)])
    make_video(media / "gone.mp4", parts=[("red", 0.5)])
    distinct_copy(media / "here.mp4", disk.folder / "there.mp4")
    index(bundle, library, media)
    assert known_mounts(library) == {disk.folder}
    disk.unmount()
    (media / "gone.mp4").unlink()
    assert list(disk.folder.iterdir()) == []

    summary = index(bundle, library, media, prune=True)
    assert summary.removed == 1
    assert [path for path, _ in summary.problems] == [disk.folder]
    assert videos(library) == {"here.mp4": ("ok", 1), "there.mp4": ("ok", 1)}
    # The folder itself, and a folder below it that the disk hides, may be named too.
    assert index(bundle, library, disk.folder, prune=True).removed == 0

    disk.mount()
    distinct_copy(media / "here.mp4", disk.folder / "new.mp4")
    assert index(bundle, library, media, prune=True).removed == 1
    assert set(videos(library)) == {"here.mp4", "new.mp4"}
    disk.unmount()
    assert index(bundle, library, media, prune=True, prune_empty=True).removed == 1
    assert known_mounts(library) == set()


def test_a_disk_that_is_unmounted_or_hidden_by_another_in_the_middle_of_a_run(
    bundle: Bundle, tmp_path: Path, disk: Disk
) -> None:
    media, library = disk.folder, tmp_path / "library"
    for name in "ab":
        make_video(media / f"{name}.mp4", parts=[("red", 0.5)])
    index(bundle, library, media)

    def hide(event: Event) -> None:
        if isinstance(event, FileStarted) and len(list(media.iterdir())) == 2:
            disk.mount()
            for name in "abc":
                (media / f"{name}.mp4").write_bytes(b"no video at all" * 9)

    def unmount(event: Event) -> None:
        if isinstance(event, FileStarted):
            disk.unmount()

    for on_event in (hide, unmount):
        for name in "ab":
            os.utime(media / f"{name}.mp4", (5, 5 + (on_event is hide)))
        summary = index(bundle, library, media, on_event=on_event)
        assert len(summary.not_reached) == 2, summary
        assert videos(library) == {"a.mp4": ("ok", 1), "b.mp4": ("ok", 1)}
        if on_event is hide:
            disk.unmount()


def test_a_folder_that_is_replaced_during_the_scan_is_not_pruned(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    media, library = tmp_path / "media", tmp_path / "library"
    make_video(media / "a.mp4", parts=[("red", 0.5)])
    other = make_video(tmp_path / "other/b.mp4", parts=[("red", 0.5)])
    index(bundle, library, media, other)
    real = os.scandir

    def scandir(folder: str | Path) -> object:
        if Path(folder) == media and not (tmp_path / "away").exists():
            media.rename(tmp_path / "away")
            media.mkdir()
        return real(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    summary = index(bundle, library, media, other, prune=True)
    assert (summary.removed, [path for path, _ in summary.problems]) == (0, [media])
    monkeypatch.undo()
    with pytest.raises(InputError, match="is its disk mounted"):
        index(bundle, library, media, other, prune=True)
    assert media / "a.mp4" in {v.file for v in Snapshot.open(library).videos(0, 9)}
