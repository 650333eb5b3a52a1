"""A small HTTP server that answers as the hub does, for one repository of files and some that are refused."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class LocalHub:
    """The address of a running hub, and what it was asked.

    `NAME` is the repository that it has; `gated/model` and `gone/model` are refused as the hub refuses them.
    """

    NAME = "someone/a-clip"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        self.address = ""


@contextmanager
def running_hub(folder: Path) -> Iterator[LocalHub]:
    """A hub whose repository holds the files of `folder`, on a free port of the loopback."""
    hub = LocalHub(folder)

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: LocalHub
    protocol_version = "HTTP/1.1"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Keep requests from the terminal."""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        self.hub.asked.append(f"{self.command} {path}")
        if "gated/model" in path:
            self._refuse(403, "GatedRepo", "Access to model gated/model is restricted.")
        elif LocalHub.NAME not in path:
            self._refuse(404, "RepoNotFound", "Repository not found")
        elif "/revision/" in path and path.rpartition("/")[2] not in ("main", "v1", COMMIT):
            self._refuse(404, "RevisionNotFound", "Invalid rev id")
        elif path.startswith("/api/models/"):
            self._json(
                self._tree() if "/tree/" in path else {"id": LocalHub.NAME, "sha": COMMIT, "siblings": []}
            )
        else:
            self._file(self.hub.folder / path.rpartition("/")[2], with_body)

    def _tree(self) -> list[dict[str, object]]:
        return [
            {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": _digest(path)[:40]}
            for path in sorted(self.hub.folder.iterdir())
        ]

    def _refuse(self, status: int, code: str, message: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _json(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _file(self, path: Path, with_body: bool) -> None:
        content = path.read_bytes()
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{_digest(path)}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
