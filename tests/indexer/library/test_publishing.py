"""Publishing grows with what changed: the index of a snapshot is made from that of the one before."""

from pathlib import Path

import numpy as np
import pytest

from indexer.library.folder import Library
from indexer.library.manifest import PARTS_VERSION, snapshot_folder, snapshot_numbers
from indexer.library.publish import PublishOptions, publish
from indexer.library.schema import fixed_to_numpy
from indexer.library.snapshot import Snapshot
from indexer.library.switching import rollback
from indexer.library.tables import open_table
from indexer.library.vectors.faiss import GONE_FILE, INDEX_FILE, TAIL_FILE, FaissBackend
from indexer.library.vectors.registry import BACKENDS
from indexer.library.verify import verify_library
from indexer.library.writer import LibraryWriter
from model.runtime.bundle import Bundle
from tests.indexer.library.test_writer import finish, segment_row, video_row
from tests.support.toy_bundle import make_toy_bundle

VIDEOS = 30
SEGMENTS_A_VIDEO = 10


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy"))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few vectors are many; and the rows are made up: their times and paths need not be true."""
    monkeypatch.setitem(BACKENDS, "faiss", FaissBackend(tail_rows=40))
    monkeypatch.setattr("indexer.library.verify.wrong_meaning", lambda *_: ())


def put(writer: LibraryWriter, video: int, content: int) -> None:
    """Add a video, or replace it by another content."""
    rows = [segment_row(writer.library, content, i, 1) for i in range(SEGMENTS_A_VIDEO)]
    writer.add_segments(rows)
    row = video_row(content, rows)
    finish(writer, row)
    if video != content:
        writer.forget_file(f"/media/{video}.mp4".encode())


def remove(writer: LibraryWriter, video: int) -> None:
    writer.forget_file(f"/media/{video}.mp4".encode())


def published(writer: LibraryWriter) -> Snapshot:
    writer.flush()
    publish(writer, PublishOptions(), last=True)
    return Snapshot.open(writer.library.path)


def check(snapshot: Snapshot, videos: set[int]) -> None:
    """The snapshot finds in its index what a scan of its table finds."""
    table = open_table(snapshot.library, "segments", snapshot.manifest.tables["segments"]).to_table()
    embeddings = fixed_to_numpy(table["embedding"])
    ingests = {int(each, 16) - 100 for each in table["ingest_id"].to_pylist()}
    assert ingests == videos
    queries = np.concatenate([embeddings[::37], embeddings[-3:]])
    scores, rows = snapshot.search(queries, 25)
    expected = np.argsort(-(queries @ embeddings.T), axis=1)[:, :25]
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ embeddings.T, rows, axis=1), atol=1e-5)
    assert verify_library(snapshot.library).ok


def index_files(snapshot: Snapshot) -> set[str]:
    return {Path(name).name for name in snapshot.manifest.index_files}


def inode(snapshot: Snapshot) -> int:
    return (snapshot_folder(snapshot.library, snapshot.number) / INDEX_FILE).stat().st_ino


def test_adding_replacing_and_removing_a_video_shares_the_index(bundle: Bundle, tmp_path: Path) -> None:
    library = Library.open_or_create(tmp_path / "library", bundle)
    with library.writing():
        writer = LibraryWriter(library)
        for video in range(VIDEOS):
            put(writer, video, video)
        first = published(writer)
        assert index_files(first) == {INDEX_FILE}
        put(writer, 50, 50)
        added = published(writer)
        assert index_files(added) == {INDEX_FILE, TAIL_FILE}
        put(writer, 3, 60)
        replaced = published(writer)
        remove(writer, 17)
        remove(writer, 60)
        removed = published(writer)
        for snapshot in (replaced, removed):
            assert index_files(snapshot) == {INDEX_FILE, TAIL_FILE, GONE_FILE}
        assert inode(first) == inode(added) == inode(replaced) == inode(removed)
        videos = set(range(VIDEOS))
        check(removed, (videos | {50}) - {3, 17})
        # Those that are open, and those that are served again, are as they were.
        check(added, videos | {50})
        check(first, videos)
    assert f'"format_version": {PARTS_VERSION}' in manifest_text(removed)
    assert f'"format_version": {PARTS_VERSION}' not in manifest_text(first)
    rollback(library.path, to=replaced.number)
    check(Snapshot.open(library.path), (videos | {50, 60}) - {3})
    # The next run goes on from what is served, and writes the index with what lies beside it.
    with library.writing():
        writer = LibraryWriter(library)
        for video in range(70, 74):
            put(writer, video, video)
        last = published(writer)
    assert inode(last) != inode(first)
    check(last, {int(video_id, 16) for video_id in writer.videos})


def test_a_damaged_index_is_not_shared(bundle: Bundle, tmp_path: Path) -> None:
    library = Library.open_or_create(tmp_path / "library", bundle)
    with library.writing():
        writer = LibraryWriter(library)
        for video in range(VIDEOS):
            put(writer, video, video)
        published(writer)
        put(writer, 50, 50)
        # No reader holds it.
        second = published(writer).number
        path = snapshot_folder(library.path, second) / INDEX_FILE
        content = bytearray(path.read_bytes())
        content[-7] ^= 1
        path.write_bytes(content)
        put(writer, 51, 51)
        third = published(writer)
    # The damaged file is that of all snapshots that share it.
    assert snapshot_numbers(library.path) == [third.number]
    check(third, {*range(VIDEOS), 50, 51})


def manifest_text(snapshot: Snapshot) -> str:
    return (snapshot_folder(snapshot.library, snapshot.number) / "manifest.json").read_text()
