"""A library in an object store whose vectors are in Milvus."""

from pathlib import Path

import pytest

from indexer.library.snapshot import Snapshot
from indexer.library.storage.address import library_folder
from indexer.library.vectors.milvus_server import ADDRESS_VARIABLE, SECONDS_VARIABLE, server_in_environment
from model.runtime.bundle import Bundle
from tests.indexer.library.storage.rows import check_search, write
from tests.support.milvus import PATIENCE_SECONDS, LiteServer


def test_snapshots_share_a_collection_that_the_store_knows(
    at_store: str, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LiteServer(tmp_path / "vectors.db") as lite:
        monkeypatch.setenv(ADDRESS_VARIABLE, f"milvus://127.0.0.1:{lite.port}")
        monkeypatch.setenv(SECONDS_VARIABLE, str(PATIENCE_SECONDS))
        library = library_folder(at_store)
        write(library, bundle, {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 5})
        write(library, bundle, {6: 6}, gone=(1,))
        # Another computer has no copies of the library's small files.
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
        snapshot = Snapshot.open(library_folder(at_store))
        assert snapshot.manifest.index_backend == "milvus"
        check_search(snapshot)
        collections = server_in_environment().ask(
            lambda client, _: client.list_collections(), PATIENCE_SECONDS
        )
        assert len(collections) == 1
