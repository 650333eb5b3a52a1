"""Sends bytes of an open file, and closes it whatever happens."""

import io
import os
from collections.abc import Mapping

import anyio
from anyio.to_thread import run_sync
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_CHUNK_BYTES = 256 << 10


class OpenFileResponse(Response):
    """The bytes `start` to `stop` of a file. The name of the file is not used again."""

    def __init__(
        self, file: io.FileIO, start: int, stop: int, status: int, headers: Mapping[str, str], media_type: str
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
                    while (await receive())["type"] != "http.disconnect":
                        pass
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
            block = await run_sync(os.pread, self._file.fileno(), size, position)
            if not block:
                return  # the file was cut: closing the connection tells the client
            position += len(block)
            more = position < self._stop
            await send({"type": "http.response.body", "body": block, "more_body": more})
