"""Requests that carry a video: which they are, and how their bodies come into a file.

A body goes to the disk as it arrives. A client may take as long as it likes, as long as something arrives.
"""

from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from service.api.connections import presence_of
from service.api.presence import ClientLeftError
from service.api.uploads import declared_type, is_multipart
from service.errors import QueryError, TooManyJobsError
from service.jobs.uploads import PartialFile

PATH = "/v1/videos"
PARTS_PATH = "/v1/uploads"
PART_TYPE = "application/offset+octet-stream"
#: Videos that may arrive at once.
MOST_ARRIVING = 4
#: What a body has beside the video at most, in bytes: the boundaries and the heads of the parts.
FRAMING_BYTES = 64 << 10
_WRITE_BYTES = 1 << 20
_EXAMPLE = "curl -F file=@beach.mp4 http://127.0.0.1:8000/v1/videos"
_MOST_HEAD_BYTES = 8192


def carries_video(scope: MutableMapping[str, Any]) -> bool:
    """Whether a request is declared as one that carries a video, or a part of one."""
    path: str = scope["path"]
    if scope["method"] == "PATCH":
        is_part = path.startswith(f"{PARTS_PATH}/")
        return is_part and declared_type(scope).strip().lower() == PART_TYPE.encode()
    return scope["method"] == "POST" and path == PATH and is_multipart(scope)


class Arrivals:
    """Counts the videos that arrive. Used in the event loop's thread alone."""

    def __init__(self) -> None:
        self._number = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """A video arrives while the context is open.

        Raises:
            TooManyJobsError: as many arrive as may.
        """
        if self._number >= MOST_ARRIVING:
            raise TooManyJobsError(
                f"{MOST_ARRIVING} videos arrive already, which is the limit. Try again when one is here.",
                retry_seconds=10.0,
            )
        self._number += 1
        try:
            yield
        finally:
            self._number -= 1


class MultipartVideo:
    """Reads multipart/form-data with one part `file`, as it arrives.

    Attributes:
        name: the name of the file; None: it has not arrived yet.
    """

    def __init__(self, content_type: str) -> None:
        """Begin.

        Raises:
            QueryError: the content type is another one, or names no boundary.
        """
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise QueryError(f"The body is no multipart/form-data. Send the video as in: {_EXAMPLE}.", "")
        self.name: str | None = None
        self._is_whole = False
        self._field = b""
        self._value = b""
        self._heads: dict[bytes, bytes] = {}
        self._arrived: list[bytes] = []
        self._parser = MultipartParser(
            options[b"boundary"],
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_end": self._on_end,
            },
        )

    def feed(self, data: bytes) -> list[bytes]:
        """Read on. → The bytes of the video in it.

        Raises:
            QueryError: the body is malformed, or a part is unknown.
        """
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise _malformed(str(error)) from error
        arrived, self._arrived = self._arrived, []
        return arrived

    def finish(self) -> None:
        """Check that all has arrived.

        Raises:
            QueryError: it has not.
        """
        if self.name is None:
            raise QueryError(f"The part `file` is missing. Send the video as in: {_EXAMPLE}.", "/file")
        if not self._is_whole:
            raise _malformed("it breaks off")

    def _on_part_begin(self) -> None:
        if self.name is not None:
            raise QueryError("There is a second part. Send one video at a time, as the part `file`.", "/file")
        self._heads = {}

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]
        self._check_head()

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._check_head()

    def _check_head(self) -> None:
        if len(self._field) + len(self._value) > _MOST_HEAD_BYTES or len(self._heads) > 16:
            raise _malformed("the head of a part is too long")

    def _on_header_end(self) -> None:
        self._heads[self._field.lower()] = self._value
        self._field = self._value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._heads.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name != "file":
            raise QueryError(f"The part {name[:60]!r} is unknown. Send the video as in: {_EXAMPLE}.", "/file")
        if not options.get(b"filename"):
            raise QueryError(f"The part `file` has no file name. Send it as in: {_EXAMPLE}.", "/file")
        self.name = options[b"filename"].decode("utf-8", "replace")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._arrived.append(data[start:end])

    def _on_end(self) -> None:
        self._is_whole = True


async def body_of(request: Request) -> AsyncIterator[bytes]:
    """The body of a request as it arrives. The connection stays open as long as some of it does.

    Raises:
        ClientLeftError: the client has left.
    """
    presence, arrived = presence_of(request.scope), 0
    try:
        async for chunk in request.stream():
            arrived += len(chunk)
            if arrived >= _WRITE_BYTES and presence is not None:
                presence.renew()
                arrived = 0
            yield chunk
    except ClientDisconnect as error:
        raise ClientLeftError from error


class Writing:
    """Writes what arrives to a file, a megabyte at a time, in other threads."""

    def __init__(self, part: PartialFile) -> None:
        self.part = part
        self._held = bytearray()

    async def add(self, data: bytes) -> None:
        """Write some bytes, now or later; for errors see `PartialFile.write`."""
        self._held += data
        if len(self._held) >= _WRITE_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Write what is held; for errors see `PartialFile.write`."""
        if self._held:
            data = bytes(self._held)
            self._held.clear()
            await run_in_threadpool(self.part.write, data)


def _malformed(why: str) -> QueryError:
    return QueryError(
        f"The body is not valid multipart/form-data: {why[:200]}. Send the video as in: {_EXAMPLE}.", "/file"
    )
