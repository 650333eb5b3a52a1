"""Sends a stream while it is made, and ends it when the client leaves."""

import logging
from collections.abc import Mapping

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.api.presence import until_gone
from service.errors import MediaUnreadableError
from service.playback.making import MadeStream

logger = logging.getLogger("reelfind")


class StreamResponse(Response):
    """A stream. It waits where the client reads slowly."""

    def __init__(self, stream: MadeStream, video_id: str, headers: Mapping[str, str]) -> None:
        """The response owns `stream`. `video_id` is for the log."""
        self._stream = stream
        self._video_id = video_id
        super().__init__(None, 200, headers, stream.media_type)
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        del scope
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async with anyio.create_task_group() as group:

                async def leave() -> None:
                    await until_gone(receive)
                    group.cancel_scope.cancel()

                group.start_soon(leave)
                await self._send_chunks(send)
                group.cancel_scope.cancel()
        finally:
            self._stream.close()

    async def _send_chunks(self, send: Send) -> None:
        try:
            async for chunk in self._stream.chunks():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except MediaUnreadableError as error:
            # The answer has begun: only closing the connection tells the client.
            logger.warning("the stream of video %s ended early: %s", self._video_id, error)
            return
        await send({"type": "http.response.body", "body": b""})
