"""A Milvus server: its address, calls to it that take a bounded time, and what its errors mean.

The only module that imports `pymilvus`, when a server is first asked.
"""

import logging
import os
import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from indexer.library.breaker import CircuitBreaker
from indexer.library.errors import LibraryError, VectorsAwayError
from model.runtime.cores import elsewhere
from model.runtime.errors import InputError
from model.runtime.installing import install_command

#: Environment variables: where the vectors are, and how long a search waits for them.
ADDRESS_VARIABLE = "REELFIND_VECTORS"
SECONDS_VARIABLE = "REELFIND_VECTORS_SECONDS"
REBUILD_REMEDY = "`reelfind library vectors rebuild --library LIBRARY` makes them anew from the tables"
_SEARCH_SECONDS = 2.0
_MOST_SECONDS = 600.0
#: Connecting may take longer than a search waits: the next search finds the connection.
_CONNECT_SECONDS = 5.0
#: A server that was away is tried again after so many milliseconds; gRPC would wait up to two minutes.
_CONNECTION = {
    "grpc.initial_reconnect_backoff_ms": 200,
    "grpc.min_reconnect_backoff_ms": 1000,
    "grpc.max_reconnect_backoff_ms": 2000,
    "grpc.use_local_subchannel_pool": 1,
}
_DEFAULT_PORT = 19530
#: Calls at the same time. Those that hang count until pymilvus gives them up.
_CALLS = 64
_REASON_CHARACTERS = 200
_CREDENTIALS = re.compile(r"//[^/@]*@")
#: Milvus's error code.
_COLLECTION_NOT_FOUND = 100

Result = TypeVar("Result")


@dataclass(frozen=True)
class MilvusAddress:
    """Where a server is.

    Attributes:
        uri: as pymilvus takes it: an address, or the path of a file of Milvus Lite.
        database: the database's name; empty: the server's default one.
        token: `user:password` or an API key; empty: none is needed. It is shown nowhere.
    """

    uri: str
    database: str = ""
    token: str = field(default="", repr=False)

    @property
    def shown(self) -> str:
        """The address for messages."""
        return f"{self.uri}/{self.database}" if self.database else self.uri


def parse_address(text: str) -> MilvusAddress:
    """Read an address: `milvus://[user:password@]host[:port][/database]`, with TLS `milvus+tls://…`.

    `milvus:///path/vectors.db` is a file of Milvus Lite.

    Raises:
        InputError: it is no such address.
    """
    try:
        parts = urlsplit(text)
        port = parts.port or _DEFAULT_PORT
    except ValueError:
        raise _wrong_address(text) from None
    database = parts.path.strip("/")
    if parts.scheme not in ("milvus", "milvus+tls") or parts.query or parts.fragment:
        raise _wrong_address(text)
    if not parts.netloc:
        if parts.scheme != "milvus" or not parts.path.endswith(".db"):
            raise _wrong_address(text)
        return MilvusAddress(parts.path)
    if not parts.hostname or "/" in database:
        raise _wrong_address(text)
    token = ":".join(unquote(each) for each in (parts.username, parts.password) if each)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return MilvusAddress(
        f"{'https' if parts.scheme.endswith('tls') else 'http'}://{host}:{port}", database, token
    )


def _wrong_address(text: str) -> InputError:
    shown = _CREDENTIALS.sub("//…@", text)
    return InputError(
        f"{ADDRESS_VARIABLE} is {shown!r}: use an address like milvus://localhost:19530, "
        "milvus+tls://user:password@host:19530/database or, for Milvus Lite, milvus:///path/vectors.db"
    )


class MilvusServer:
    """Calls to a server, each of a bounded time. Many threads may use it.

    Attributes:
        search_seconds: how long a search may take.
    """

    def __init__(self, address: MilvusAddress, search_seconds: float = _SEARCH_SECONDS) -> None:
        self.address = address
        self.search_seconds = search_seconds
        self._breaker = CircuitBreaker(VectorsAwayError, f"the vectors at {address.shown}")
        self._lock = threading.Lock()
        self._client: Any = None
        # pymilvus tries again and reconnects beyond the time that it is given: its calls are not waited for.
        self._calls = ThreadPoolExecutor(_CALLS, thread_name_prefix="reelfind-milvus")

    def ask(self, call: Callable[[Any, float], Result], seconds: float) -> Result:
        """What `call` returns for a client of pymilvus and the seconds that it may take.

        Raises:
            VectorsAwayError: the server does not answer in time, or says that it cannot answer now.
            LibraryError: it has no such collection.
            InputError: pymilvus is not installed.
        """
        pymilvus = import_pymilvus()
        with self._breaker.call(seconds):
            future = self._calls.submit(self._answer, pymilvus, call, seconds)
            try:
                with elsewhere():
                    return future.result(seconds)
            except FutureTimeoutError as error:
                future.cancel()
                raise self._away(f"no answer within {seconds:.1f} s") from error
            except pymilvus.MilvusException as error:
                reason = " ".join(str(error.message).split())[:_REASON_CHARACTERS]
                if error.code == _COLLECTION_NOT_FOUND:
                    raise LibraryError(
                        f"{self.address.shown} has lost the library's vectors ({reason}): {REBUILD_REMEDY}"
                    ) from error
                raise self._away(reason) from error

    def _answer(self, pymilvus: Any, call: Callable[[Any, float], Result], seconds: float) -> Result:
        """Runs in a thread of its own. Once connected, pymilvus and gRPC connect again by themselves."""
        import grpc  # comes with pymilvus

        with self._lock:
            if self._client is None:
                self._client = pymilvus.MilvusClient(
                    self.address.uri,
                    token=self.address.token,
                    db_name=self.address.database,
                    timeout=_CONNECT_SECONDS,
                    grpc_options=_CONNECTION,
                )
        try:
            return call(self._client, seconds)
        except grpc.RpcError as error:
            raise pymilvus.MilvusException(message=f"{error.code().name}: {error.details()}") from error

    def _away(self, reason: str) -> VectorsAwayError:
        return VectorsAwayError(f"the vectors at {self.address.shown} cannot be reached: {reason}")


def server_in_environment(environment: Mapping[str, str] = os.environ) -> MilvusServer:
    """The server that the environment names; one object for each address, as long as the process runs.

    Raises:
        InputError: it names none, or a variable is wrong.
    """
    text = environment.get(ADDRESS_VARIABLE, "")
    if not text:
        raise InputError(
            f"the library's vectors are in Milvus, and {ADDRESS_VARIABLE} does not say where: "
            f"`export {ADDRESS_VARIABLE}=milvus://localhost:19530`"
        )
    seconds = environment.get(SECONDS_VARIABLE, "") or str(_SEARCH_SECONDS)
    return _server(text, seconds)


@cache
def _server(text: str, seconds: str) -> MilvusServer:
    try:
        search_seconds = float(seconds)
    except ValueError:
        search_seconds = 0.0
    if not 0 < search_seconds <= _MOST_SECONDS:
        raise InputError(
            f"{SECONDS_VARIABLE} is {seconds!r}: use a number of seconds more than 0 and at most "
            f"{_MOST_SECONDS:g}, like {_SEARCH_SECONDS:g}"
        )
    return MilvusServer(parse_address(text), search_seconds)


def import_pymilvus() -> Any:
    """The package `pymilvus`.

    Raises:
        InputError: it is not installed.
    """
    try:
        import pymilvus
    except ImportError as error:
        raise InputError(
            f"the vectors are in Milvus, and pymilvus is not installed: `{install_command('milvus')}`"
        ) from error
    # It would write to the terminal, with a traceback, each error that is raised here.
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL + 1)
    return pymilvus
