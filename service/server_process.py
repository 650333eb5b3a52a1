"""Runs the real server as a child process, for the demo and the benchmark."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from model.runtime.errors import ReelfindError
from service.client_errors import shown_errors

if TYPE_CHECKING:
    from service.client import Client

# -P: do not import a folder named `service` in the current folder.
REELFIND = (sys.executable, "-P", "-m", "service")
_STOP_SECONDS = 15.0
#: What `reelfind serve` prints when its address answers.
_LISTENING = re.compile(r"^Reelfind is at http://\S+:(\d+) ", re.MULTILINE)


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

    @contextmanager
    def client(self, timeout_seconds: float = 30.0) -> "Iterator[Client]":
        """A client of the server, which sends nothing twice. Raises as `shown_errors`."""
        # Import late: most commands need no HTTP.
        from service.client import Client

        # The key in the environment is for another service.
        own = Client(self.url, key="", timeout=timeout_seconds, retries=0, trust_env=False)
        with shown_errors(), own as client:
            yield client


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
    command = [*REELFIND, "serve", "--library", str(library), "--host", host]
    command += ["--port", str(port)] + (["--bundle", str(bundle)] if bundle is not None else [])
    command += ["--media", str(media)] if media is not None else []
    with tempfile.TemporaryDirectory() as folder:
        out, log = Path(folder, "out"), Path(folder, "log")
        # In a session of its own: Ctrl-C reaches only the parent, which then stops the child cleanly.
        with out.open("wb") as out_file, log.open("wb") as log_file:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out_file,
                stderr=log_file,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )
        try:
            deadline = time.monotonic() + ready_seconds
            bound = _wait_for_port(process, out, deadline)
            server = ServerProcess(host, bound or port, process)
            if bound is None or not _wait_until_ready(server, deadline):
                _stop(process)
                tail = log.read_text(errors="replace").strip()[-2000:]
                what = "does not start" if bound is None else f"is not ready on {server.url}"
                raise ReelfindError(f"The server {what}. Its log ends:\n{tail or '-'}")
            yield server
        finally:
            _stop(process)


def _wait_for_port(process: subprocess.Popen[bytes], out: Path, deadline: float) -> int | None:
    """The port that the server says it listens on; None if it ends, or says nothing in time.

    Only this line tells that it has the port: whatever else listens there could answer as well.
    """
    while time.monotonic() < deadline and process.poll() is None:
        if match := _LISTENING.search(out.read_text(errors="replace")):
            return int(match[1])
        time.sleep(0.05)
    return None


def _wait_until_ready(server: ServerProcess, deadline: float) -> bool:
    while time.monotonic() < deadline and server.process.poll() is None:
        # It may be busy, or end.
        with contextlib.suppress(ReelfindError), server.client(timeout_seconds=5.0) as client:
            client.readiness()
            return True
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


def _reachable(host: str) -> str:
    """The address to connect to for a server that listens on `host`, which may mean every address."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
