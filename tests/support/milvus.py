"""Milvus servers for tests: Milvus Lite in this process, and a whole server where one is asked for."""

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from milvus_lite.adapter.grpc.server import start_server_in_thread

from indexer.library.vectors.milvus_server import MilvusServer, parse_address

#: `1`: start the server of the package `milvus`; or the address of one that runs. Else there is none.
WHOLE_SERVER = os.environ.get("REELFIND_MILVUS_TESTS", "")
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


class PackagedServer:
    """The server of the package `milvus`, which installs the programs of Milvus 2.3.5."""

    def __init__(self, folder: Path) -> None:
        """`folder` keeps what it stores. `start` starts it."""
        from milvus import MilvusServer as Program
        from milvus import MilvusServerConfig

        self._program: Any = Program(MilvusServerConfig(data_dir=str(folder)))

    def start(self) -> None:
        """Return once it answers, with what it had stored before."""
        self._program.start()

    def stop(self) -> None:
        self._program.stop()

    @property
    def port(self) -> int:
        """It is another one each time the server starts."""
        return int(self._program.listen_port)


@cache
def packaged_server() -> PackagedServer:
    """A server for all tests of this process, running."""
    folder = Path(tempfile.mkdtemp(prefix="reelfind-milvus-"))
    server = PackagedServer(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(server.stop)
    server.start()
    return server


@cache
def whole_server() -> MilvusServer:
    """The server that `REELFIND_MILVUS_TESTS` asks for."""
    address = f"milvus://127.0.0.1:{packaged_server().port}" if WHOLE_SERVER == "1" else WHOLE_SERVER
    return MilvusServer(parse_address(address), PATIENCE_SECONDS)
