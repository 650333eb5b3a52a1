"""Searches of several clients at the same time, which one thread sends to a server.

The clients share the cores with the server that they measure, so that they must take little: each is a socket
that is kept open, one thread waits for all of them, and the answers are read as JSON when the last one is
there. A search costs them about 0.2 ms of processor time.
"""

import json
import re
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from model.runtime.errors import ReelfindError
from service.api.search_processes.crew import BUSY_CALLS, most_processes
from service.server_process import ServerProcess
from service.settings import Settings

# Long enough for many clients on a slow machine.
_TIMEOUT_SECONDS = 600.0
_READ_BYTES = 1 << 18
_HEAD_ENDS = b"\r\n\r\n"
_UNAVAILABLE = 503
_START_SECONDS = 60.0
#: Searches of each client in one load, at least: with few, most of the time fewer clients are left.
SEARCHES_EACH = 8
_PROCESSES = re.compile(r"^reelfind_search_processes (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Load:
    """What several clients measured that searched at the same time."""

    seconds: float
    latencies: tuple[float, ...]
    """Seconds of each search."""
    reranked: float
    """The share of the searches that were re-ranked."""
    candidates: float
    """Mean number of candidates of those that were."""
    moments: tuple[float, ...] = ()
    """Seconds of each search that it took to find moments."""

    @property
    def rate(self) -> float:
        """Searches per second."""
        return len(self.latencies) / self.seconds


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int


def drive(server: ServerProcess | Address, bodies: Sequence[dict[str, Any]], clients: int) -> Load:
    """Share the searches among `clients`; each sends one after another, on its own connection.

    A search that the server refuses because it cannot be in time counts as one that was not re-ranked.

    Args:
        server: what is searched.
        bodies: the requests, as `POST /v1/search` takes them.
        clients: how many send them, at least 1.

    Raises:
        ReelfindError: the server does not answer a search.
    """
    requests = [_request(server, body) for body in bodies]
    connections = [_Connection(server, requests[number::clients]) for number in range(clients)]
    try:
        with selectors.DefaultSelector() as selector:
            started = time.perf_counter()
            for connection in connections:
                if connection.send_next():
                    selector.register(connection.stream, selectors.EVENT_READ, connection)
            while selector.get_map():
                ready = selector.select(_TIMEOUT_SECONDS)
                if not ready:
                    raise ReelfindError(f"The server has not answered for {_TIMEOUT_SECONDS:g} s.")
                for connection in [key.data for key, _ in ready]:
                    if connection.has_answer() and not connection.send_next():
                        selector.unregister(connection.stream)
            seconds = time.perf_counter() - started
    finally:
        for connection in connections:
            connection.stream.close()
    return _measured(seconds, [answer for connection in connections for answer in connection.answers])


def warm_up(
    server: ServerProcess, body: Callable[[], dict[str, Any]], clients: int, settings: Settings
) -> None:
    """Search until the server has as many processes as it starts for so many clients.

    Args:
        server: what is searched, with these settings.
        body: makes the next request.
        clients: how many will search.
        settings: the server's.

    Raises:
        ReelfindError: the server does not answer a search.
    """
    wanted = max(1, min(most_processes(settings), (clients - 1) // BUSY_CALLS + 1))
    ends = time.monotonic() + _START_SECONDS
    while True:
        drive(server, [body() for _ in range(4 * clients)], clients)
        with server.client() as client:
            found = _PROCESSES.search(client.metrics())
        if found is None or float(found[1]) >= wanted or time.monotonic() > ends:
            return


@dataclass(frozen=True)
class _Answer:
    """How long an answer took, its status and its body."""

    seconds: float
    status: int
    body: bytes


@dataclass
class _Connection:
    """One client: what it has to ask, and what it was answered."""

    server: ServerProcess | Address
    requests: list[bytes]
    stream: socket.socket = field(init=False)
    answers: list[_Answer] = field(default_factory=list)
    _received: bytearray = field(default_factory=bytearray)
    _sent_at: float = 0.0

    def __post_init__(self) -> None:
        try:
            self.stream = socket.create_connection((self.server.host, self.server.port), _TIMEOUT_SECONDS)
        except OSError as error:
            raise ReelfindError(
                f"No connection to {self.server.host} port {self.server.port}: {error}."
            ) from error
        self.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send_next(self) -> bool:
        """Send the next request; False: there is none."""
        if len(self.answers) == len(self.requests):
            return False
        self._received.clear()
        self._sent_at = time.perf_counter()
        self.stream.sendall(self.requests[len(self.answers)])
        return True

    def has_answer(self) -> bool:
        """Read what has come. → Whether that is the whole answer, which is then the last of `answers`."""
        try:
            received = self.stream.recv(_READ_BYTES)
        except OSError as error:
            raise ReelfindError(f"The server has broken off a connection: {error}.") from error
        if not received:
            raise ReelfindError("The server has closed a connection before it had answered a search.")
        self._received += received
        head_ends = self._received.find(_HEAD_ENDS)
        if head_ends < 0:
            return False
        status, length = _head(bytes(self._received[:head_ends]))
        start = head_ends + len(_HEAD_ENDS)
        if len(self._received) < start + length:
            return False
        body = bytes(self._received[start:])
        self.answers.append(_Answer(time.perf_counter() - self._sent_at, status, body))
        return True


def _request(server: ServerProcess | Address, body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    head = (
        f"POST /v1/search HTTP/1.1\r\nhost: {server.host}:{server.port}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def _head(head: bytes) -> tuple[int, int]:
    """The status of an answer, and the bytes of its body."""
    status, *lines = head.split(b"\r\n")
    headers = dict(line.lower().split(b": ", 1) for line in lines)
    return int(status.split(b" ", 2)[1]), int(headers[b"content-length"])


def _measured(seconds: float, answers: Sequence[_Answer]) -> Load:
    counts: list[int] = []
    moments: list[float] = []
    for answer in answers:
        content = json.loads(answer.body)
        if answer.status == _UNAVAILABLE:
            content = {}
        elif answer.status != 200:
            raise ReelfindError(f"The server answered a search with {answer.status}: {content['detail']}")
        counts.append(content.get("num_candidates", 0))
        moments.append(content.get("timings_ms", {}).get("moments", 0.0) / 1000)
    reranked = [count for count in counts if count]
    return Load(
        seconds,
        tuple(answer.seconds for answer in answers),
        len(reranked) / max(1, len(answers)),
        sum(reranked) / max(1, len(reranked)),
        tuple(moments),
    )
