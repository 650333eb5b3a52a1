"""How videos were recorded, from files to records; of libraries made before, from their headers alone."""

from __future__ import annotations

import os
import shutil
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import av
import lance
import numpy as np
import pyarrow as pa
import pytest

from indexer.events import Event, IndexSummary
from indexer.library.checksums import CHECKSUMS
from indexer.library.records import NO_RECORDING, Recording
from indexer.library.schema import FACT_COLUMNS
from indexer.library.snapshot import Snapshot
from indexer.library.verify import verify_library
from indexer.options import IndexOptions
from indexer.run import index_paths
from model.runtime.bundle import Bundle
from model.runtime.places import Place
from tests.support.crafted_library import change_table, set_column, stamp_again
from tests.support.indexed_home import pictures_of
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_library import ToyLibrary

IPHONE = {
    "com.apple.quicktime.creationdate": "2023-07-14T18:22:31+0200",
    "com.apple.quicktime.location.ISO6709": "+48.8584+002.2945+035.000/",
    "com.apple.quicktime.make": "Apple",
    "com.apple.quicktime.model": "iPhone 12",
}
EXPECTED = {
    "phone.mov": Recording(
        datetime(2023, 7, 14, 18, 22, 31, tzinfo=timezone(timedelta(hours=2))),
        "tag_with_zone",
        Place(48.8584, 2.2945, 35.0),
        "Apple iPhone 12",
        True,
        "aac",
    ),
    "VID_20240131_154502.mp4": Recording(
        datetime(2024, 1, 31, 15, 45, 2, tzinfo=UTC), "file_name", has_sound=False
    ),
    "holiday.mp4": Recording(datetime(2020, 5, 6, 7, 8, 9, tzinfo=UTC), "file_time", has_sound=False),
}


def write_video(path: Path, tags: dict[str, str] | None = None, *, sound: bool = False) -> Path:
    options = {"movflags": "use_metadata_tags"} if tags else {}
    with av.open(str(path), "w", options=options) as container:
        container.metadata.update(tags or {"comment": path.name})
        video = container.add_stream("libx264", rate=4, options={"preset": "ultrafast"})
        assert isinstance(video, av.VideoStream)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        track = container.add_stream("aac", rate=16000, layout="mono") if sound else None
        for _ in range(3):
            pixels = np.full((48, 64, 3), len(path.name), np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode(None))
        if track is not None:
            assert isinstance(track, av.AudioStream)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 16000
            container.mux(track.encode(frame))
            container.mux(track.encode(None))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    folder = tmp_path_factory.mktemp("facts")
    toy = ToyLibrary(folder / "media", folder / "library", make_toy_bundle(folder / "bundle"))
    toy.media.mkdir()
    write_video(toy.media / "phone.mov", IPHONE, sound=True)
    write_video(toy.media / "VID_20240131_154502.mp4")
    modified = datetime(2020, 5, 6, 7, 8, 9, tzinfo=UTC).timestamp()
    os.utime(write_video(toy.media / "holiday.mp4"), (modified, modified))
    toy.index()
    return toy


@pytest.fixture
def older(made: ToyLibrary, tmp_path: Path) -> ToyLibrary:
    """The library as an earlier version made it."""
    shutil.copytree(made.media, tmp_path / "media")
    toy = ToyLibrary(tmp_path / "media", tmp_path / "library", made.bundle)
    toy.index()
    lance.dataset(str(toy.library / "videos.lance")).drop_columns([*FACT_COLUMNS, CHECKSUMS])
    stamp_again(toy.library)
    return toy


def recordings(toy: ToyLibrary) -> dict[str, Recording]:
    return {video.file.name: video.recording for video in Snapshot.open(toy.library).videos(0, 10)}


def index(toy: ToyLibrary, stop: threading.Event | None = None, **options: Any) -> IndexSummary:
    events: list[Event] = []
    bundle = Bundle.open(toy.bundle)
    return index_paths([toy.media], toy.library, bundle, IndexOptions(**options), events.append, stop)


def test_what_files_say_is_stored(made: ToyLibrary) -> None:
    assert recordings(made) == EXPECTED
    snapshot = Snapshot.open(made.library)
    for video in snapshot.videos(0, 10):
        label = snapshot.label(video.video_id)
        assert label is not None
        assert label.recording == video.recording
    assert verify_library(made.library).ok
    assert made.index().facts_read == 0


@pytest.mark.parametrize("workers", [0, 1])
def test_of_videos_that_were_indexed_before_the_headers_are_read(older: ToyLibrary, workers: int) -> None:
    assert set(recordings(older).values()) == {NO_RECORDING}
    before = pictures_of(older.library)
    summary = index(older, workers=workers)
    assert (summary.facts_read, summary.verdicts.total(), summary.published) == (3, 0, True)
    assert recordings(older) == EXPECTED
    assert pictures_of(older.library) == before
    assert verify_library(older.library).ok
    again = index(older, workers=workers)
    assert (again.facts_read, again.published) == (0, False)


def test_what_cannot_be_read_now_is_read_later(older: ToyLibrary) -> None:
    """A file that is away, one whose time has changed, and a run that is stopped."""
    phone, holiday = older.media / "phone.mov", older.media / "holiday.mp4"
    phone.rename(older.media.parent / "away")
    stop = threading.Event()
    stop.set()
    assert index(older, stop, workers=0).facts_read == 0
    assert set(recordings(older).values()) == {NO_RECORDING}
    assert index(older, workers=0).facts_read == 2
    found = recordings(older)
    assert found["phone.mov"] == NO_RECORDING
    assert found["holiday.mp4"] == EXPECTED["holiday.mp4"]
    (older.media.parent / "away").rename(phone)
    os.utime(holiday, (1_600_000_000, 1_600_000_000))
    # Another time of the same content: what was read of it stays.
    assert index(older, workers=0).facts_read == 1
    assert recordings(older) == EXPECTED


def test_what_a_stranger_says_counts_as_unknown_where_it_cannot_be(made: ToyLibrary, tmp_path: Path) -> None:
    shutil.copytree(made.library, tmp_path / "library")

    def told() -> list[Recording]:
        return [video.recording for video in Snapshot.open(tmp_path / "library").videos(0, 10)]

    def change(table: pa.Table) -> pa.Table:
        for name, values in {
            "latitude": [91.0, float("nan"), 1.0],
            "longitude": [1.0, 1.0, None],
            "captured_source": ["dream", "tag_utc", None],
            "captured_offset_minutes": [30000, 30000, 0],
        }.items():
            table = set_column(table, name, values)
        return table

    change_table(tmp_path / "library", "videos", change)
    assert [each.place for each in told()] == [None] * 3
    assert sorted(str(each.captured_source) for each in told()) == ["None", "None", "tag_utc"]
    report = verify_library(tmp_path / "library")
    problems = " ".join(problem for snapshot in report.snapshots for problem in snapshot.problems)
    for what in ("its captured_source is 'dream'", "its captured_offset_minutes is 30000", "at no place"):
        assert what in problems
    # Beyond what Python's times reach.
    times = pa.array([0, 1 << 62, -(1 << 62)]).cast(pa.timestamp("us", "UTC"))
    change_table(tmp_path / "library", "videos", lambda table: set_column(table, "captured_at", times))
    assert [each.captured_at for each in told()] == [None] * 3
