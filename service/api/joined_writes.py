"""Writes the head of an answer together with its body: each write to a socket costs some time."""

import asyncio
from typing import Any

_HEAD = b"HTTP/"


class JoinedWrites:
    """A transport that holds the head of an answer until the next write or the event loop's next turn.

    All else is passed on at once to the transport that it wraps.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""

    def write(self, data: bytes) -> None:
        """Write; a head perhaps a little later."""
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held + data)
        elif data.startswith(_HEAD):
            self._held = data
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def write_eof(self) -> None:
        """Write what is held, and close the writing end."""
        self._flush()
        self._transport.write_eof()

    def close(self) -> None:
        """Write what is held, and close."""
        self._flush()
        self._transport.close()

    def get_write_buffer_size(self) -> int:
        """How many bytes the client has not read."""
        return len(self._held) + self._transport.get_write_buffer_size()

    def _flush(self) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
