"""Runs the real server as a child process, for the demo and the benchmark."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.runtime.errors import ReelfindError

# -P: do not import a folder named `service` in the current folder.
REELFIND = (sys.executable, "-P", "-m", "service")
_STOP_SECONDS = 15.0


@dataclass(frozen=True)
class ServerProcess:
    """A running server: its address and its process."""

    host: str
    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """The address to open in a browser."""
        return f"http://{_reachable(self.host)}:{self.port}"

    def connect(self, timeout_seconds: float = 30.0) -> http.client.HTTPConnection:
        """Open a connection, which may send many requests, one after another."""
        return http.client.HTTPConnection(_reachable(self.host), self.port, timeout=timeout_seconds)


class RequestFailed(ReelfindError):  # noqa: N818 - named after what happened
    """The server answered with an error, whose HTTP status is `status`, or not at all (None)."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


def post_json(connection: http.client.HTTPConnection, path: str, body: Any) -> Any:
    """POST `body` as JSON and return the JSON of the answer.

    Raises:
        RequestFailed: there is no answer, or its status is not 200.
    """
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise RequestFailed(f"The server gave no answer to POST {path} ({error}): see its log") from error
    if response.status != 200:
        text = answer[:300].decode(errors="replace")
        raise RequestFailed(f"The server answered {response.status} to POST {path}: {text}", response.status)
    return json.loads(answer)


@contextmanager
def running_server(
    library: Path,
    *,
    bundle: Path | None = None,
    media: Path | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    ready_seconds: float = 60.0,
    environment: Mapping[str, str] | None = None,
) -> Iterator[ServerProcess]:
    """Start `reelfind serve` on `library`, wait until it is ready, and stop it at the end.

    Args:
        library: the library's folder.
        bundle: the model bundle's folder; None: the installed one.
        media: a folder whose videos may be played; None: those that were indexed into the library.
        host: the address to listen on.
        port: the port to listen on; 0: any free port.
        ready_seconds: how long to wait.
        environment: variables beside those of this process.

    Raises:
        ReelfindError: the server is not ready in time; the message has the end of its log.
    """
    port = port or _free_port(host)
    command = [*REELFIND, "serve", "--library", str(library), "--host", host]
    command += ["--port", str(port)] + (["--bundle", str(bundle)] if bundle is not None else [])
    command += ["--media", str(media)] if media is not None else []
    with tempfile.TemporaryFile() as log:
        # In a session of its own: Ctrl-C reaches only the parent, which then stops the child cleanly.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
        try:
            server = ServerProcess(host, port, process)
            if not _wait_until_ready(server, ready_seconds):
                _stop(process)
                log.seek(0)
                tail = log.read().decode(errors="replace").strip()[-2000:]
                raise ReelfindError(f"The server is not ready on {server.url}. Its log ends:\n{tail or '-'}")
            yield server
        finally:
            _stop(process)


def _wait_until_ready(server: ServerProcess, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            connection = server.connect(timeout_seconds=5.0)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return True
        except (OSError, http.client.HTTPException):
            pass  # not listening yet
        finally:
            connection.close()
        time.sleep(0.1)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def _free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _reachable(host: str) -> str:
    """The address to connect to for a server that listens on `host`, which may mean every address."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
