"""`reelfind watch` as a process: files come, change, get other names and go, and so do causes of failures."""

import fcntl
import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from indexer.library.snapshot import Snapshot
from tests.support.server import REELFIND, clean_environment
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_videos import make_video

pytestmark = pytest.mark.slow
SECONDS = 60.0


class Watch:
    """A running `reelfind watch --json`, and the lines that it prints."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)

    def until(self, event: str, accept: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, Any]:
        """The next event of this kind that is accepted; those before it are passed over."""
        while True:
            found: dict[str, Any] = json.loads(self._lines.get(timeout=SECONDS))
            if found["event"] == event and accept(found):
                return found

    def until_file(self, name: str, verdict: str = "ok") -> None:
        """Wait until a file is done."""
        self.until("file", lambda found: (Path(found["path"]).name, found["verdict"]) == (name, verdict))

    def stop(self) -> int:
        """End it in order. → Its exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(SECONDS)
        self._reader.join()
        return code


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy")


@pytest.fixture
def media(tmp_path: Path) -> Path:
    make_video(tmp_path / "media/first.mp4", parts=[("red", 0.5)])
    return tmp_path / "media"


@contextmanager
def watching(bundle: Path, media: Path, *options: str, settle: str = "0.3") -> Iterator[Watch]:
    command = [*REELFIND, "watch", str(media), "--library", str(media.parent / "library")]
    process = subprocess.Popen(
        [*command, "--bundle", str(bundle), "--workers", "0", "--json", *options],
        env=clean_environment() | {"REELFIND_SETTLE_SECONDS": settle, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    watch = Watch(process)
    try:
        yield watch
    finally:
        process.kill()
        process.wait()
        watch._reader.join()
        assert process.stdout is not None
        process.stdout.close()


def paths(media: Path) -> dict[str, bool]:
    """The names of the places that are served, and whether they are there."""
    snapshot = Snapshot.open(media.parent / "library")
    return {
        file.path.name: file.missing_since is None
        for video in snapshot.videos(0, 100)
        for file in video.files
    }


@pytest.mark.parametrize("how", ["--events", "--poll"])
def test_what_comes_changes_and_goes_is_followed(bundle: Path, media: Path, how: str) -> None:
    options = (how, "--poll-seconds", "0.5", "--prune", "--hwaccel", "cuda")
    with watching(bundle, media, *options) as watch:
        assert (watch.until("watching")["polled"] is None) == (how == "--events")
        watch.until("note", lambda note: "cuda" in note["text"])
        assert watch.until("run")["files"] == 1
        make_video(media / "new/deep/second.mp4", parts=[("green", 0.5)])
        (media / "new/notes.txt").write_text("no film")
        watch.until_file("second.mp4")
        (media / "first.mp4").rename(media / "renamed.mp4")
        watch.until_file("renamed.mp4", "unchanged")
        watch.until("published")
        make_video(media / "renamed.mp4", parts=[("blue", 0.5)])
        watch.until_file("renamed.mp4")
        watch.until("published")
        (media / "new").rename(media / "old")
        watch.until_file("second.mp4", "unchanged")
        (media / "old/.reelfindignore").write_text("second.*\n")
        watch.until("run", lambda run: run["removed"] == 1)
        (media / "renamed.mp4").unlink()
        watch.until("run", lambda run: run["removed"] == 1)
        assert watch.stop() == 0


def test_subtitles_that_come_later_are_read(bundle: Path, media: Path) -> None:
    with watching(bundle, media) as watch:
        watch.until("run")
        (media / "first.en.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nA red wall\n")
        watch.until_file("first.mp4", "unchanged")
        watch.until("published")
        assert watch.stop() == 0


def test_a_copy_is_indexed_when_it_is_whole(bundle: Path, media: Path, tmp_path: Path) -> None:
    source = make_video(tmp_path / "source.mp4", parts=[("green", 1.0)]).read_bytes()
    with watching(bundle, media, settle="0.5") as watch:
        watch.until("run")
        size = len(source) // 12 + 1
        for start in range(0, len(source), size):
            with (media / "copy.mp4").open("ab") as file:
                file.write(source[start : start + size])
            threading.Event().wait(0.3)
        watch.until_file("copy.mp4")
        assert watch.stop() == 0
    assert paths(media) == {"first.mp4": True, "copy.mp4": True}


def test_it_goes_on_when_the_cause_of_a_failure_is_gone(bundle: Path, media: Path) -> None:
    library = media.parent / "library"
    with watching(bundle, media, "--prune") as watch:
        watch.until("run")
        # Another process writes.
        with (library / "LOCK").open("r+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            make_video(media / "second.mp4", parts=[("green", 0.5)])
            assert "is being written by" in watch.until("trouble")["reason"]
        watch.until_file("second.mp4")
        watch.until("run")
        # The share goes away and comes back: nothing is removed.
        media.rename(media.parent / "away")
        assert "cannot be reached" in watch.until("trouble")["reason"]
        make_video(media.parent / "away/third.mp4", parts=[("blue", 0.5)])
        (media.parent / "away").rename(media)
        watch.until_file("third.mp4")
        assert watch.until("run")["removed"] == 0
        # Killed, and started again: what came meanwhile is found.
        watch.process.kill()
    make_video(media / "fourth.mp4", parts=[("white", 0.5)])
    with watching(bundle, media, "--prune") as watch:
        watch.until_file("fourth.mp4")
        assert watch.until("run")["unchanged"] == 3
        assert watch.stop() == 0
    assert set(paths(media)) == {"first.mp4", "second.mp4", "third.mp4", "fourth.mp4"}


def test_stopping_keeps_what_is_encoded(bundle: Path, media: Path) -> None:
    make_video(media / "long.mp4", parts=[("green", 400.0)], fps=4)
    with watching(bundle, media) as watch:
        watch.until("file", lambda found: found["path"].endswith("first.mp4"))
        assert watch.stop() == 0
    assert "first.mp4" in paths(media)


def test_a_path_that_is_not_there_is_refused(bundle: Path, tmp_path: Path) -> None:
    command = [*REELFIND, "watch", str(tmp_path / "none"), "--library", str(tmp_path / "library")]
    done = subprocess.run(
        [*command, "--bundle", str(bundle)],
        env=clean_environment() | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 2
    assert "none does not exist" in done.stderr
    assert not os.path.lexists(tmp_path / "library")
