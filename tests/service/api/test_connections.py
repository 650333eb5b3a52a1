"""Clients that are slow, greedy or malformed, against a real server: the others are answered meanwhile."""

import json
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import httpx
import pytest

from service.api.connections import MAX_HEAD_BYTES, client_key
from tests.support.server import Server, running_server, until
from tests.support.toy_library import ToyLibrary, make_library

#: The limits of the server under test: few connections, short times.
LIMITS = {
    "REELFIND_MAX_CONNECTIONS": "24",
    "REELFIND_MAX_CONNECTIONS_PER_CLIENT": "16",
    "REELFIND_RECEIVE_SECONDS": "2",
    "REELFIND_SEND_SECONDS": "2",
    "REELFIND_KEEP_ALIVE_SECONDS": "600",
}
POST = b"POST /v1/search HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
SEARCH = json.dumps({"query": {"text": "red"}}).encode()


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    toy = make_library(
        tmp_path_factory.mktemp("load"), {"red.mp4": [("red", 2.0)], "blue.mp4": [("blue", 2.0)]}
    )
    # More than sockets hold, so that a client that does not read it stops the answer: free space of MP4.
    with (toy.media / "red.mp4").open("ab") as film:
        film.write((32 << 20).to_bytes(4, "big") + b"free" + bytes((32 << 20) - 8))
    toy.index()
    return toy


@pytest.fixture(scope="module")
def server(toy: ToyLibrary) -> Iterator[Server]:
    with running_server(*toy.options, environment=LIMITS) as server:
        yield server


def connect(server: Server, host: str = "127.0.0.1", receive_buffer: int | None = None) -> socket.socket:
    """A connection from one of the loopback's addresses: each is a client of its own."""
    connection = socket.socket()
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.bind((host, 0))
    connection.settimeout(60)
    url = httpx.URL(server.url)
    connection.connect((url.host, url.port))
    return connection


def read_all(connection: socket.socket) -> bytes:
    """What comes until the server closes the connection, also if it does so abruptly."""
    received = b""
    try:
        while chunk := connection.recv(1 << 16):
            received += chunk
    except ConnectionResetError:
        pass
    return received


def problem_of(answer: bytes) -> tuple[int, dict[str, Any]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    assert b"connection: close" in head
    return int(head.split()[1]), json.loads(body)


def metric(server: Server, name: str) -> float:
    lines = server.client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def ended(server: Server, reason: str) -> float:
    return metric(server, f'reelfind_connections_ended_total{{reason="{reason}"}}')


@contextmanager
def dripping(connection: socket.socket, data: bytes, seconds: float = 0.02) -> Iterator[None]:
    """Send `data` again and again, until the server closes the connection."""
    stop = threading.Event()

    def drip() -> None:
        try:
            while not stop.wait(seconds):
                connection.sendall(data)
        except OSError:
            pass

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_an_endless_header_is_cut_off(server: Server) -> None:
    before = ended(server, "malformed")
    with closing(connect(server)) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-endless: ")
        sent = 0
        try:
            while sent < 64 << 20:
                sent += connection.send(b"a" * 4096)
        except OSError:
            pass
        assert sent < 32 << 20, "the server went on reading"
    assert ended(server, "malformed") == before + 1
    assert server.search("red")


@pytest.mark.parametrize(
    "start",
    [
        b"GET /" + b"a" * 200_000,
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 40_000,
        b"POST /v1/search HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n1;"
        + b"a" * 200_000,
        b"POST /v1/videos HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n0\r\n"
        + b"a: b\r\n" * 40_000,
    ],
    ids=["target", "headers", "chunk extension", "trailers"],
)
def test_nothing_without_end_is_held(server: Server, start: bytes) -> None:
    with closing(connect(server)) as connection:
        with suppress(OSError):
            connection.sendall(start)
        answer = read_all(connection)
        assert not answer or answer.startswith(b"HTTP/1.1 4")
    assert server.search("red")


def test_a_head_of_the_usual_size_is_read(server: Server) -> None:
    cookie = "a" * (MAX_HEAD_BYTES - 1000)
    assert server.client.get("/healthz", headers={"cookie": cookie}).status_code == 200


@pytest.mark.parametrize(
    "start",
    [
        b"GET /healthz HTTP/1.1\r\nx-slow: ",
        b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\nGET /healthz HTTP/1.1\r\nx-slow: ",
        POST + b"content-length: 60000\r\n\r\n",
        POST.replace(b"/v1/search", b"/nowhere") + b"content-length: 60000\r\n\r\n",
    ],
    ids=["head", "second head", "body", "body of an answered request"],
)
def test_a_request_that_drips_is_ended(server: Server, start: bytes) -> None:
    before = ended(server, "slow_request")
    with closing(connect(server)) as connection:
        connection.sendall(start)
        with dripping(connection, b"a"):
            assert server.search("red"), "others wait for a slow client"
            answer = read_all(connection)
    assert ended(server, "slow_request") == before + 1
    if b"nowhere" not in start:
        status, problem = problem_of(answer[answer.rindex(b"HTTP/1.1") :])
        assert (status, problem["type"]) == (408, "urn:reelfind:problem:request-timeout")


def test_a_body_that_never_comes_is_not_waited_for(server: Server) -> None:
    """Neither alone nor behind an answered request, in one piece with it."""
    head = POST + b"content-length: 100\r\n\r\n{"
    for start in (head, b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n" + head):
        with closing(connect(server)) as connection:
            connection.sendall(start)
            assert b"HTTP/1.1 408" in read_all(connection)


def test_a_connection_on_which_nothing_is_asked_is_closed(server: Server) -> None:
    with closing(connect(server)) as connection:
        assert read_all(connection) == b""


def test_a_client_that_reads_nothing_is_ended(server: Server, toy: ToyLibrary) -> None:
    (hit,) = [hit for hit in server.search("red") if hit["path"].endswith("red.mp4")]
    before = ended(server, "slow_reader")
    with closing(connect(server, receive_buffer=4096)) as connection:
        connection.sendall(
            f"GET /v1/videos/{hit['video_id']}/media HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()
        )
        until(lambda: ended(server, "slow_reader") > before)
        received = read_all(connection)
    assert received.startswith(b"HTTP/1.1 200")
    assert len(received) < 16 << 20
    # Who reads gets all of it, however often he pauses.
    with server.client.stream("GET", f"/v1/videos/{hit['video_id']}/media") as response:
        assert sum(map(len, response.iter_bytes())) >= 32 << 20


def test_answers_that_nobody_reads_are_ended(server: Server) -> None:
    """Small answers, pipelined: together they are more than the sockets hold."""
    before = ended(server, "slow_reader")
    with closing(connect(server, receive_buffer=4096)) as connection:
        connection.settimeout(1)
        try:
            while ended(server, "slow_reader") == before:
                connection.sendall(b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n" * 50)
        except OSError:
            pass
        until(lambda: ended(server, "slow_reader") > before)
    assert server.search("red")


def test_one_address_gets_its_share_of_connections_and_another_still_gets_one(server: Server) -> None:
    refused = ended(server, "client_share")
    greedy = [connect(server, "127.0.0.2") for _ in range(16)]
    try:
        for connection in greedy:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nx: ")  # begun, so that none is idle
        until(lambda: metric(server, "reelfind_connections ") >= 17)
        with closing(connect(server, "127.0.0.2")) as connection:
            status, problem = problem_of(read_all(connection))
        assert status == 503
        assert "16 connections from this address are open" in problem["detail"]
        assert ended(server, "client_share") == refused + 1
        with closing(connect(server, "127.0.0.3")) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            assert read_all(connection).startswith(b"HTTP/1.1 200")
    finally:
        for connection in greedy:
            connection.close()


def test_idle_connections_give_way(server: Server) -> None:
    """Far more than there may be, from three addresses: those that idle longest are closed for new ones."""
    before = ended(server, "idle")
    idle = [connect(server, f"127.0.0.{2 + number % 3}") for number in range(60)]
    try:
        assert server.search("red")
        with closing(connect(server, "127.0.0.9")) as connection:
            connection.sendall(
                b"%sconnection: close\r\ncontent-length: %d\r\n\r\n" % (POST, len(SEARCH)) + SEARCH
            )
            assert read_all(connection).startswith(b"HTTP/1.1 200")
        assert metric(server, "reelfind_connections ") <= 24
        assert ended(server, "idle") >= before + 60 - 24
        assert read_all(idle[0]) == b"", "the oldest is still open"
    finally:
        for connection in idle:
            connection.close()


def test_connections_stay_below_the_limit_of_open_files(toy: ToyLibrary) -> None:
    """Under a hard limit of files that 1,000 connections would exceed, 700 idle ones stop nothing."""
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (400, 400)); "
        "from service.cli import main; sys.argv[0] = 'reelfind'; main()"
    )
    program = (sys.executable, "-c", script)
    with running_server(*toy.options, program=program) as server:
        idle = [connect(server, f"127.0.0.{2 + number % 5}") for number in range(450)]
        try:
            for _ in range(3):
                assert server.search("red")
            assert metric(server, "reelfind_connections ") <= (400 - 256) // 2
        finally:
            for connection in idle:
                connection.close()
        assert "400 files may be open, so at most 72 connections, not 1000" in server.log()


def test_who_counts_as_one_client() -> None:
    assert client_key("192.0.2.1") == client_key("::ffff:192.0.2.1") == "192.0.2.1"
    assert client_key("2001:db8::1") == client_key("2001:db8:0:0:ffff::2") == "2001:db8::/64"
    assert client_key("2001:db8:0:1::1") != client_key("2001:db8::1")
    assert client_key("a name") == "a name"
