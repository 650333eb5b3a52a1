"""Lets a process without network read one remote file: it asks its parent for byte ranges over a socket.

    start (8 bytes), count (4 bytes)            from the process; a count of 0 asks for the file's facts
    error number (4 bytes), length (4 bytes)    to it, then the bytes, the facts, or the error in words

The process may be taken over by what it reads: whatever it asks for, it gets bytes of that one file.
"""

import errno
import os
import socket
import struct
import threading
from contextlib import suppress

from model.runtime.remote.path import RangeSource, RemoteFacts, RemotePath, source_of

_REQUEST = struct.Struct("<QI")
_ANSWER = struct.Struct("<iI")
_FACTS = struct.Struct("<Qq")
#: Bytes of one answer, at most.
_MOST_BYTES = 4 << 20
_LARGEST = (1 << 63) - 1


def open_channel(path: RemotePath) -> socket.socket:
    """The end of a channel for a process; the other end is served until the process closes its own."""
    ours, theirs = socket.socketpair()
    threading.Thread(target=_serve, args=(ours, path), name="ranges", daemon=True).start()
    return theirs


def _serve(connection: socket.socket, path: RemotePath) -> None:
    with connection, suppress(OSError, EOFError):
        source: RangeSource | None = None
        while True:
            start, count = _REQUEST.unpack(_receive(connection.fileno(), _REQUEST.size))
            if count > _MOST_BYTES or start > _LARGEST:
                return
            try:
                source = source or source_of(path)
                answer = source.read(start, count) if count else _FACTS.pack(*source.look())
                number = 0
            except OSError as error:
                number, answer = error.errno or errno.EIO, (error.strerror or str(error)).encode()
            connection.sendall(_ANSWER.pack(number, len(answer)) + answer)


class ChannelSource:
    """Reads a file through a channel; see `RangeSource`.

    Args:
        descriptor: the end of the channel that this process was given.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        # Decoders read in threads of their own.
        self._lock = threading.Lock()
        self._first: RemoteFacts | None = None

    def look(self) -> RemoteFacts:
        """See `RangeSource`."""
        facts = RemoteFacts(*_FACTS.unpack(self._ask(0, 0)))
        self._first = self._first or facts
        return facts

    @property
    def size(self) -> int:
        """See `RangeSource`."""
        return (self._first or self.look()).bytes

    def read(self, start: int, count: int) -> bytes:
        """See `RangeSource`."""
        parts = []
        while count > 0:
            part = self._ask(start, min(count, _MOST_BYTES))
            if not part:
                break
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return b"".join(parts)

    def _ask(self, start: int, count: int) -> bytes:
        with self._lock:
            try:
                request = _REQUEST.pack(start, count)
                if os.write(self._descriptor, request) != len(request):
                    raise EOFError
                number, length = _ANSWER.unpack(_receive(self._descriptor, _ANSWER.size))
                answer = _receive(self._descriptor, length)
            except EOFError:
                raise OSError(errno.EPIPE, "what reads it for this process has ended") from None
        if number:
            raise OSError(number, answer.decode("utf-8", "replace"))
        return answer


def _receive(descriptor: int, length: int) -> bytes:
    parts = []
    while length:
        part = os.read(descriptor, length)
        if not part:
            raise EOFError
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
