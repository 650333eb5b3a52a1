"""A web server of files that answers byte ranges, or does not."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote

from tests.support.http_server import serving

#: When all files were modified, in seconds since 1970.
MODIFIED = 1_700_000_000


@dataclass
class WebFiles:
    """What a web server has.

    Attributes:
        files: contents, by name.
        has_ranges: whether it answers byte ranges.
        ranges: those that were asked for.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    has_ranges: bool = True
    ranges: list[str] = field(default_factory=list)


@contextmanager
def web_server(content: WebFiles) -> Iterator[str]:
    """Serve files. → The address of the server."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            data = content.files.get(unquote(self.path).lstrip("/"))
            if data is None:
                self.send_error(404)
                return
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
            status, headers = 200, {"last-modified": formatdate(MODIFIED, usegmt=True)}
            if asked and content.has_ranges:
                content.ranges.append(asked[0])
                start, stop = int(asked[1]), min(int(asked[2]) + 1, len(data))
                headers["content-range"] = f"bytes {start}-{stop - 1}/{len(data)}"
                status, data = 206, data[start:stop]
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_HEAD = do_GET  # noqa: N815

    with serving(Handler) as address:
        yield address
