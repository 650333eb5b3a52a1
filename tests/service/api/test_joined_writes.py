"""Heads of answers are written with their bodies, and nothing is lost or late."""

from __future__ import annotations

import asyncio
import socket

import pytest

from service.api.joined_writes import JoinedWrites

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Counted:
    """A real transport whose writes are counted."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)


@pytest.mark.parametrize(
    ("parts", "writes"),
    [
        ([HEAD, b"body", b""], [HEAD + b"body"]),
        ([HEAD, b"body", b"more"], [HEAD + b"body", b"more"]),
        ([HEAD, b""], [HEAD]),
        ([HEAD], [HEAD]),
        ([b"body", HEAD, HEAD, b"x"], [b"body", HEAD + HEAD, b"x"]),
    ],
)
@pytest.mark.parametrize("ending", ["turn", "close", "eof"])
def test_a_head_goes_out_with_what_follows_it(parts: list[bytes], writes: list[bytes], ending: str) -> None:
    async def run() -> tuple[list[bytes], int, bytes]:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        counted = Counted(transport)
        joined = JoinedWrites(counted, loop)  # type: ignore[arg-type]
        for part in parts:
            joined.write(part)
        held = joined.get_write_buffer_size()
        if ending == "turn":
            await asyncio.sleep(0)
        elif ending == "close":
            joined.close()
        else:
            joined.write_eof()
        sent = [part for part in counted.writes if part]
        received = await loop.sock_recv(theirs, 100)
        assert joined.get_write_buffer_size() == 0
        transport.close()
        theirs.close()
        return sent, held, received

    sent, held, received = asyncio.run(run())
    assert sent == writes
    assert received == b"".join(parts)
    assert held == (len(HEAD) if parts == [HEAD] else 0)
