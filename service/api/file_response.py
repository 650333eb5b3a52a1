"""Answers with an open file or a part of it, and closes it whatever happens."""

import io
from collections.abc import Mapping

import anyio
from anyio.to_thread import run_sync
from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from model.runtime.messages import shorten
from service.api.media import RangeError, byte_range, is_fresh, read_at
from service.api.presence import until_gone
from service.api.remote_media import RemoteFile

_CHUNK_BYTES = 256 << 10


def answer_file(
    file: io.FileIO | RemoteFile,
    size: int,
    request: Headers,
    *,
    etag: str,
    modified: str,
    name: str,
    media_type: str,
) -> Response:
    """The answer to a request for a file: all of it, the range that is asked for, or that nothing is new.

    Args:
        file: the file, which the answer owns, also where an error is raised.
        size: how many bytes of it count.
        request: the headers of the request.
        etag: differs where the file does.
        modified: when the file was modified, as HTTP writes it.
        name: the header `content-disposition`.
        media_type: the content type.

    Raises:
        HTTPException: the range lies outside the file: 416.
    """
    headers = {"etag": etag, "last-modified": modified, "cache-control": "private, no-cache"}
    try:
        if is_fresh(request, etag, modified):
            file.close()
            return Response(status_code=304, headers=headers)
        part = byte_range(request, size, etag, modified)
    except RangeError as error:
        file.close()
        raise HTTPException(
            416,
            f"The file has {error.size:,} bytes; the range {shorten(request['range'])} has none of them. Ask "
            f"for bytes 0 to {max(0, error.size - 1)}.",
            {"content-range": f"bytes */{error.size}"},
        ) from None
    headers["accept-ranges"] = "bytes"
    headers["content-disposition"] = name
    if part is None:
        return OpenFileResponse(file, 0, size, 200, headers, media_type)
    headers["content-range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
    return OpenFileResponse(file, part.start, part.stop, 206, headers, media_type)


class OpenFileResponse(Response):
    """The bytes `start` to `stop` of a file. The name of the file is not used again."""

    def __init__(
        self,
        file: io.FileIO | RemoteFile,
        start: int,
        stop: int,
        status: int,
        headers: Mapping[str, str],
        media_type: str,
    ) -> None:
        """The response owns `file`. `stop` is not sent itself."""
        self._file, self._start, self._stop = file, start, stop
        super().__init__(None, status, headers, media_type)
        self.headers["content-length"] = str(stop - start)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response; stop reading when the client leaves."""
        try:
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            if scope["method"] == "HEAD" or self._start == self._stop:
                await send({"type": "http.response.body", "body": b""})
                return
            async with anyio.create_task_group() as group:

                async def leave() -> None:
                    await until_gone(receive)
                    group.cancel_scope.cancel()

                group.start_soon(leave)
                await self._send_bytes(send)
                group.cancel_scope.cancel()
        finally:
            self._file.close()

    async def _send_bytes(self, send: Send) -> None:
        position = self._start
        while position < self._stop:
            size = min(_CHUNK_BYTES, self._stop - position)
            try:
                block = await run_sync(read_at, self._file, size, position)
            except OSError:
                return  # its disk or server fails: closing the connection tells the client
            if not block:
                return  # the file was cut
            position += len(block)
            more = position < self._stop
            await send({"type": "http.response.body", "body": block, "more_body": more})
