"""A whole Milvus server that ends and starts again; `make milvus` also runs the contract with it."""

import importlib.util
import time
from pathlib import Path

import numpy as np
import pytest

from indexer.library.errors import VectorsAwayError
from indexer.library.vectors.base import ArrayVectors
from indexer.library.vectors.milvus import MilvusBackend
from indexer.library.vectors.milvus_server import MilvusServer, parse_address
from tests.indexer.library.vectors.test_contract import nearest, new_folder, recall, unit_vectors
from tests.support.milvus import PATIENCE_SECONDS, WHOLE_SERVER, PackagedServer
from tests.support.tcp_proxy import TcpProxy

if WHOLE_SERVER != "1":
    pytest.skip("`make milvus` runs these: they start a Milvus server", allow_module_level=True)
if importlib.util.find_spec("milvus") is None:
    pytest.skip("the package 'milvus' is not installed: `make milvus` installs it", allow_module_level=True)

pytestmark = pytest.mark.slow


def test_an_index_is_found_again_after_the_server_was_restarted(tmp_path: Path) -> None:
    packaged = PackagedServer(tmp_path / "server")
    packaged.start()
    try:
        with TcpProxy(packaged.port) as proxy:
            check_restart(tmp_path, packaged, proxy)
    finally:
        packaged.stop()


def check_restart(tmp_path: Path, packaged: PackagedServer, proxy: TcpProxy) -> None:
    address = parse_address(f"milvus://127.0.0.1:{proxy.port}")
    server = MilvusServer(address, PATIENCE_SECONDS)
    backend = MilvusBackend(lambda: server)
    vectors, queries = unit_vectors(20_000, 1), unit_vectors(20, 2)
    folder = new_folder(tmp_path / "library")
    backend.save(backend.build(ArrayVectors(vectors[:19_990]), "IVF128,SQ8", folder)[0], folder)
    # What was added last is in no file of the server yet.
    index = backend.extend(backend.open(folder), ArrayVectors(vectors))
    assert index is not None
    expected = nearest(vectors, queries, 10, np.arange(20_000))
    assert recall(index.search(queries, 10)[1], expected) > 0.9
    packaged.stop()
    hurried = MilvusBackend(lambda: MilvusServer(address, 1.0)).open(folder)
    with pytest.raises(VectorsAwayError, match="cannot be reached"):
        hurried.search(queries, 10)
    packaged.start()
    proxy.target_port = packaged.port
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            rows = index.search(queries, 10)[1]
            break
        except VectorsAwayError:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    assert recall(rows, expected) > 0.9
    assert backend.verify(index, ArrayVectors(vectors)) is None
