"""Opens a video's file that is read by byte ranges, from an object store or a web server."""

import os
import socket

from model.runtime.remote.channel import open_channel
from model.runtime.remote.path import RemotePath, status_of
from model.runtime.remote.store import StoreSource


class RemoteFile:
    """A remote file that is open for reading. Whoever has it calls `close`.

    Args:
        path: its address.

    Attributes:
        status: what it was like when it was opened. If it changes, it cannot be read on.

    Raises:
        OSError: it is missing, or its server does not say.
    """

    def __init__(self, path: RemotePath) -> None:
        self._path = path
        self._source = StoreSource(path)
        self._channel: socket.socket | None = None
        self.status: os.stat_result = status_of(path, self._source.look())

    def pread(self, count: int, start: int) -> bytes:
        """The bytes from `start` on, `count` or fewer. OSError where they cannot be read."""
        return self._source.read(start, count)

    def fileno(self) -> int:
        """The end of a channel by which a process reads the file; see `model.runtime.remote.channel`."""
        if self._channel is None:
            self._channel = open_channel(self._path)
        return self._channel.fileno()

    def close(self) -> None:
        """Close it. A process that was given the channel reads on."""
        if self._channel is not None:
            self._channel.close()
