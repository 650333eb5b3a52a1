"""A server of Amazon S3's protocol (moto), and a proxy before it that answers wrongly now and then."""

import http.client
import logging
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.request import Request, urlopen

import boto3
from moto.server import ThreadedMotoServer

from tests.support.http_server import serving

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
BUCKET = "videos"
#: How a proxy can fail: `lost` forwards the request and drops the answer, `cut` gives half of the answer.
FAULTS = ("dropped", "lost", "delayed", "500", "503", "cut")


@contextmanager
def object_store() -> Iterator[str]:
    """A server with an empty bucket. → Its address."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        address = f"http://{host}:{port}"
        with urlopen(Request(f"{address}/{BUCKET}", method="PUT")):
            pass
        yield address
    finally:
        server.stop()


@dataclass
class Faults:
    """How often a proxy fails, and how often it has.

    Attributes:
        share: of all requests, those that fail; 0: the proxy only forwards.
        injected: how often it failed in each way.
        is_away: whether it refuses every request.
        requests: how many requests have come.
        ignored: headers that the server does not get to see.
        sent_bytes: how many bytes of content were sent to clients.
    """

    share: float = 0.0
    injected: Counter[str] = field(default_factory=Counter)
    is_away: bool = False
    requests: int = 0
    ignored: tuple[str, ...] = ()
    sent_bytes: int = 0

    @property
    def total(self) -> int:
        """How many requests have failed."""
        return sum(self.injected.values())


def put_object(store: str, name: str, content: bytes) -> None:
    """Put an object into the bucket of a server, or replace it."""
    _client(store).put_object(Bucket=BUCKET, Key=name, Body=content)


def delete_object(store: str, name: str) -> None:
    """Delete an object of the bucket of a server."""
    _client(store).delete_object(Bucket=BUCKET, Key=name)


@cache
def _client(store: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=store,
        region_name=KEYS["AWS_REGION"],
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
    )


@contextmanager
def faulty_proxy(target: str, faults: Faults, seed: int = 0) -> Iterator[str]:
    """A proxy before a server, which fails as `faults` says. → Its address."""
    host, _, port = target.removeprefix("http://").partition(":")
    rng, lock = random.Random(seed), threading.Lock()

    def chosen() -> str | None:
        with lock:
            faults.requests += 1
            if faults.is_away:
                return "dropped"
            if rng.random() >= faults.share:
                return None
            kind = rng.choice(FAULTS)
            faults.injected[kind] += 1
            return kind

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            fault = chosen()
            if fault == "dropped":
                self.drop()
                return
            if fault in ("500", "503"):
                text = b"<Error><Code>SlowDown</Code></Error>" if fault == "503" else b"<Error/>"
                self.answer(int(fault), [("content-type", "application/xml")], text, len(text))
                return
            if fault == "delayed":
                time.sleep(0.05)
            with http_connection(host, int(port)) as connection:
                connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    if name.lower() not in ("connection", "expect", *faults.ignored):
                        connection.putheader(name, value)
                connection.endheaders(body or None)
                response = connection.getresponse()
                content = response.read()
                headers = [
                    (name, value)
                    for name, value in response.getheaders()
                    if name.lower() not in ("connection", "content-length", "transfer-encoding")
                ]
                length = len(content)
                if self.command == "HEAD":
                    length = int(response.getheader("content-length") or 0)
            if fault == "lost":
                self.drop()
                return
            if fault == "cut" and length:
                self.answer(response.status, headers, content[: len(content) // 2], length)
                self.drop()
                return
            self.answer(response.status, headers, content, length)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = forward  # noqa: N815

        def answer(self, status: int, headers: list[tuple[str, str]], content: bytes, length: int) -> None:
            self.send_response_only(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("content-length", str(length))
            self.end_headers()
            if self.command != "HEAD":
                with lock:
                    faults.sent_bytes += len(content)
                with suppress(ConnectionError):
                    self.wfile.write(content)

        def drop(self) -> None:
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    with serving(Handler) as address:
        yield address


@contextmanager
def http_connection(host: str, port: int) -> Iterator[http.client.HTTPConnection]:
    """A connection that is closed at the end."""
    connection = http.client.HTTPConnection(host, port, timeout=30)
    try:
        yield connection
    finally:
        connection.close()
