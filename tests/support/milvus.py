"""Milvus servers for tests: Milvus Lite in this process, and one that cannot be reached for a while."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from milvus_lite.adapter.grpc.server import start_server_in_thread

from indexer.library.vectors.milvus_server import MilvusServer, parse_address

#: Longer than any call takes on a busy machine.
PATIENCE_SECONDS = 120.0


class LiteServer:
    """Milvus Lite, which listens on a port of this computer until it is stopped."""

    def __init__(self, folder: Path) -> None:
        """`folder` keeps what it stores."""
        self._server: Any
        self._server, self._database, self.port = start_server_in_thread(
            data_dir=str(folder), host="127.0.0.1", port=0
        )

    @property
    def address(self) -> str:
        return f"milvus://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self._server.stop(grace=None).wait()
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


@cache
def lite_server() -> MilvusServer:
    """A server for all tests of this process."""
    folder = Path(tempfile.mkdtemp(prefix="reelfind-milvus-"))
    server = LiteServer(folder / "vectors.db")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(server.stop)
    return MilvusServer(parse_address(server.address), PATIENCE_SECONDS)
