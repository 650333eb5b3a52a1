"""Nodes of a cluster write rows into the store themselves, where they reach it; the driver commits them."""

from pathlib import Path

import pytest

from indexer.engines.ray_actors import SharedTables
from indexer.library.folder import Library
from indexer.library.fragments import write_segments
from indexer.library.publish import PublishOptions, publish
from indexer.library.snapshot import Snapshot
from indexer.library.storage.address import library_folder, place_name
from indexer.library.storage.registry import storage_of
from indexer.library.writer import LibraryWriter
from model.runtime.bundle import Bundle
from tests.indexer.library.storage.rows import check_search
from tests.indexer.library.test_writer import finish, segment_row, video_row


def test_a_node_writes_rows_that_the_driver_commits(
    at_store: str, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = library_folder(at_store)
    opened = Library.open_or_create(library, bundle)
    assert place_name(opened.tables) == at_store
    assert place_name(library / "generations" / "a") == f"{at_store}/generations/a"
    tables = SharedTables(place_name(opened.tables), ".mark")
    assert not tables.are_seen()
    storage_of(library).write(library / ".mark", b"")
    rows = [segment_row(opened, 7, i, 2) for i in range(5)]
    with monkeypatch.context() as node:
        node.setenv("XDG_CACHE_HOME", str(tmp_path / "node"))
        assert tables.are_seen()
        written = write_segments(tables.folder, opened.layout, rows)
        node.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        monkeypatch.setattr("model.runtime.remote.client._RETRY_SECONDS", 0)
        assert not tables.are_seen()
    with opened.writing():
        writer = LibraryWriter(opened)
        row = video_row(7, rows)
        writer.add_written(written, [row.ingest_id])
        finish(writer, row)
        writer.flush()
        publish(writer, PublishOptions(), last=True)
    snapshot = Snapshot.open(library)
    assert snapshot.num_segments == 5
    check_search(snapshot)
