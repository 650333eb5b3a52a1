"""Files that are still being written are waited for, and left for the next run if that takes too long."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from indexer.events import FileStarted, FileStillWritten, IndexSummary
from indexer.library.snapshot import Snapshot
from indexer.options import IndexOptions
from indexer.plan import IndexTask
from indexer.run import index_paths
from indexer.settling import SettledTasks
from model.runtime.bundle import Bundle
from model.runtime.errors import InputError
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_videos import make_video

SETTLE = 0.5


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy"))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its index, the box `moov`, is at the end, as it is where a camera or a program has just written it."""
    return make_video(tmp_path_factory.mktemp("film") / "film.mp4", parts=[("red", 2.0)])


def index(bundle: Bundle, library: Path, media: Path, **options: Any) -> tuple[IndexSummary, list[str]]:
    """The summary, and the names of the files in the order in which they were read or left."""
    names = []

    def note(event: object) -> None:
        if isinstance(event, FileStarted | FileStillWritten):
            names.append(f"{'left ' if isinstance(event, FileStillWritten) else ''}{event.path.name}")

    settings = IndexOptions(**{"workers": 0, "settle_seconds": SETTLE, **options})
    return index_paths([media], library, bundle, settings, note), names


@contextmanager
def meanwhile(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Do some work in a thread until it ends, or the test does."""
    stop = threading.Event()
    thread = threading.Thread(target=work, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def writing(
    source: Path, target: Path, pieces: int, *, keep_time: bool = False
) -> Callable[[threading.Event], None]:
    """Copies a file in pieces, a fifth of `SETTLE` apart, opened and closed for each."""
    data = source.read_bytes()
    size = -(-len(data) // pieces)

    def write(stop: threading.Event) -> None:
        for start in range(0, len(data), size):
            with target.open("ab") as file:
                file.write(data[start : start + size])
            if keep_time:
                os.utime(target, (1_000_000_000, 1_000_000_000))
            if stop.wait(SETTLE / 5):
                return

    return write


@pytest.mark.parametrize("keep_time", [False, True])
def test_a_copy_is_read_when_it_is_whole_and_holds_nobody_up(
    bundle: Bundle, film: Path, tmp_path: Path, keep_time: bool
) -> None:
    media = tmp_path / "media"
    old = make_video(media / "old.mp4", parts=[("blue", 1.0)])
    os.utime(old, (1_000_000_000, 1_000_000_000))
    (media / "a copy.mp4").touch()
    with meanwhile(writing(film, media / "a copy.mp4", 8, keep_time=keep_time)):
        summary, names = index(bundle, tmp_path / "library", media)
    assert (summary.verdicts, summary.still_written) == ({"ok": 2}, [])
    assert set(names) == {"old.mp4", "a copy.mp4"}
    row = next(v for v in Snapshot.open(tmp_path / "library").videos(0, 10) if v.path.endswith("copy.mp4"))
    assert row.bytes == film.stat().st_size
    assert row.duration_seconds == pytest.approx(2.0)


def test_what_does_not_come_to_rest_is_left_and_its_rows_stay(
    bundle: Bundle, film: Path, tmp_path: Path
) -> None:
    media, library = tmp_path / "media", tmp_path / "library"
    make_video(media / "growing.mp4", parts=[("green", 1.0)])
    index(bundle, library, media, settle_seconds=0)
    before = Snapshot.open(library).videos(0, 10)
    make_video(media / "new.mp4", parts=[("blue", 1.0)])

    def grow(stop: threading.Event) -> None:
        while not stop.wait(0.05):
            with (media / "growing.mp4").open("ab") as file:
                file.write(b"\0")

    with meanwhile(grow):
        time.sleep(0.2)
        started = time.monotonic()
        summary, names = index(bundle, library, media)
        assert time.monotonic() - started < 20 * SETTLE
    assert names[-1] == "left growing.mp4"
    assert summary.still_written == [media / "growing.mp4"]
    assert summary.verdicts == {"ok": 1}
    after = {row.video_id: row for row in Snapshot.open(library).videos(0, 10)}
    assert len(after) == 2
    assert after[before[0].video_id] == before[0]
    summary, _ = index(bundle, library, media)
    assert (summary.still_written, summary.unchanged, sum(summary.verdicts.values())) == ([], 1, 1)


def test_a_film_without_its_index_is_left_as_long_as_it_is_young(
    bundle: Bundle, film: Path, tmp_path: Path
) -> None:
    media, library = tmp_path / "media", tmp_path / "library"
    media.mkdir()
    data = film.read_bytes()
    assert data.index(b"moov") > data.index(b"mdat"), "the index comes last"
    (media / "film.mp4").write_bytes(data[: data.index(b"moov") - 4])
    make_video(media / "new.mp4", parts=[("blue", 1.0)])
    summary, _ = index(bundle, library, media)
    assert summary.still_written == [media / "film.mp4"]
    (media / "film.mp4").write_bytes(data)
    summary, _ = index(bundle, library, media)
    assert (summary.verdicts, summary.unchanged) == ({"ok": 1}, 1)


@pytest.mark.parametrize("seconds", [-86_400, 86_400, 13_537_929_600])
def test_a_clock_that_is_wrong_makes_nobody_wait_for_long(
    bundle: Bundle, film: Path, tmp_path: Path, seconds: int
) -> None:
    """A modification time of yesterday, tomorrow, or 2399."""
    media = tmp_path / "media"
    media.mkdir()
    (media / "film.mp4").write_bytes(film.read_bytes())
    then = seconds if seconds > 10**9 else int(time.time()) + seconds
    os.utime(media / "film.mp4", (then, then))
    started = time.monotonic()
    summary, _ = index(bundle, tmp_path / "library", media)
    assert summary.verdicts == {"ok": 1}
    assert time.monotonic() - started < 12 * SETTLE


def test_files_at_rest_do_not_wait_and_stopping_ends_waiting(film: Path, tmp_path: Path) -> None:
    young = tmp_path / "film.mp4"
    young.write_bytes(film.read_bytes())
    task = IndexTask(young, "ingest", size=young.stat().st_size)
    stop = threading.Event()
    left: list[IndexTask] = []
    assert list(SettledTasks([task], 0, stop, left.append)) == [task]
    tasks = SettledTasks([task], 3600, stop, left.append)
    assert (len(tasks), task in tasks) == (1, True)
    threading.Timer(0.2, stop.set).start()
    started = time.monotonic()
    assert (list(tasks), left) == ([], [])
    assert time.monotonic() - started < 10
    # It is gone: its decoder says so.
    young.unlink()
    assert list(SettledTasks([task], 3600, threading.Event(), left.append)) == [task]


def test_a_time_that_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="settle_seconds is -1"):
        IndexOptions(settle_seconds=-1)
