"""The real `reelfind serve` as a process, for tests over HTTP."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

REELFIND = (sys.executable, "-m", "service")
START_SECONDS = 60.0
#: On a busy machine the default deadline may pass, and no answer is re-ranked.
PATIENT = {"REELFIND_DEADLINE_MS": "600000", "REELFIND_MAX_DEADLINE_MS": "600000"}


@dataclass(frozen=True)
class Server:
    """A running server; `client` has its address as base."""

    url: str
    process: subprocess.Popen[str]
    client: httpx.Client
    log_file: Path

    def log(self) -> str:
        """What the server has written to stderr."""
        return self.log_file.read_text(encoding="utf-8")

    def ask(self, text: str, **fields: object) -> dict[str, Any]:
        """The whole answer for a text."""
        response = self.client.post("/v1/search", json={"query": {"text": text}, **fields})
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def search(self, text: str, **fields: object) -> list[dict[str, Any]]:
        """The hits for a text."""
        hits: list[dict[str, Any]] = self.ask(text, **fields)["hits"]
        return hits

    def video_id(self, name: str) -> str:
        """The id of the video whose path ends with `name`."""
        videos = self.client.get("/v1/videos").json()["videos"]
        found: str = next(
            video["video_id"]
            for video in videos
            if any(file["path"].endswith(name) for file in video["files"])
        )
        return found


@contextmanager
def running_server(
    *options: str,
    environment: Mapping[str, str] | None = None,
    ready: bool = True,
    program: Sequence[str] = REELFIND,
) -> Iterator[Server]:
    """`reelfind serve` with `options` on a free port of the loopback, stopped at the end.

    Waits until searches are answered, or with `ready=False` only until the process answers at all. `program`
    runs `reelfind`.
    """
    with tempfile.TemporaryDirectory() as folder:
        log_file = Path(folder) / "log"
        command = [*program, "serve", "--host", "127.0.0.1", "--port", "0", *options]
        with log_file.open("w") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=clean_environment() | PATIENT | dict(environment or {}),
            )
        try:
            # The one line on stdout comes when the address answers, or never when the process ends.
            watchdog = threading.Timer(START_SECONDS, process.kill)
            watchdog.start()
            assert process.stdout is not None
            line = process.stdout.readline()
            watchdog.cancel()
            url = next((word for word in line.split() if word.startswith("http://")), None)
            if url is None:
                process.wait(START_SECONDS)
                raise RuntimeError(f"the server did not start: {line}{log_file.read_text()}")
            with httpx.Client(base_url=url, timeout=30.0, trust_env=False) as client:
                if ready:
                    wait_until_ready(client, log_file)
                yield Server(url, process, client, log_file)
        finally:
            stop(process)


def wait_until_ready(client: httpx.Client, log_file: Path) -> None:
    """Return once /readyz answers 200."""
    deadline = time.monotonic() + START_SECONDS
    while (response := client.get("/readyz")).status_code != 200:
        if time.monotonic() > deadline:
            raise RuntimeError(f"not ready: {response.text}\n{log_file.read_text()}")
        time.sleep(0.05)


def until(condition: Callable[[], bool]) -> None:
    """Return once a condition holds; fails if it does not within a minute."""
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it does not come to hold"
        time.sleep(0.02)


def stop(process: subprocess.Popen[str]) -> int:
    """End a server in order and return its exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        code = process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    if process.stdout is not None:
        process.stdout.close()
    return code


def run_reelfind(*arguments: str, environment: Mapping[str, str], code: int = 0) -> str:
    """Run a command that ends with a code. → What it prints on stdout, or on stderr if it fails."""
    done = subprocess.run(
        [*REELFIND, *arguments],
        env=clean_environment() | dict(environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def clean_environment() -> dict[str, str]:
    """The environment without settings of ours, so that only a test's options count.

    Files that a test has just made are read at once.
    """
    others = {name: value for name, value in os.environ.items() if not name.startswith("REELFIND_")}
    return others | {"REELFIND_SETTLE_SECONDS": "0"}
