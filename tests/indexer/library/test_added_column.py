"""A library made before a column was added is served, and written on."""

from pathlib import Path

import lance
import pyarrow as pa

from indexer.library.catalog import VideoCatalog
from indexer.library.checksums import CHECKSUMS
from indexer.library.schema import CONTAINER_START
from indexer.library.snapshot import Snapshot
from tests.support.toy_library import make_library


def test_videos_of_an_older_library_are_listed_and_kept(tmp_path: Path) -> None:
    toy = make_library(tmp_path, films={"old.mp4": [("red", 2.0)]})
    table = toy.library / "videos.lance"
    lance.dataset(str(table)).drop_columns([CONTAINER_START, CHECKSUMS])
    rows: pa.Table = lance.dataset(str(table)).to_table()
    assert CONTAINER_START not in rows.column_names
    files = lance.dataset(str(toy.library / "files.lance")).to_table()
    [record] = VideoCatalog(rows, files).page(0, 10, None)
    assert record.container_start_seconds is None

    toy.film("new.mp4", [("blue", 2.0)])
    assert toy.index().verdicts["ok"] == 1
    videos = Snapshot.open(toy.library).videos(0, 10)
    assert {video.file.name: video.container_start_seconds for video in videos} == {
        "old.mp4": None,
        "new.mp4": 0.0,
    }
