"""Messages between the server and its search processes: a number, a length and a pickle.

Only processes that the server has started are at the other end, and no file or client can write here.
"""

import pickle
import socket
import struct
from typing import Any

#: The number of a message, which its answer has too, and the bytes of its pickle.
HEAD = struct.Struct("<QQ")


def packed(number: int, message: Any) -> bytes:
    """A message in bytes."""
    content = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return HEAD.pack(number, len(content)) + content


def unpacked(content: bytes) -> Any:
    """The message in a pickle."""
    return pickle.loads(content)  # noqa: S301  from a process of ours


def receive(connection: socket.socket) -> tuple[int, Any]:
    """Wait for a message. → Its number, and the message.

    Raises:
        EOFError: the other end is closed.
    """
    number, size = HEAD.unpack(_exactly(connection, HEAD.size))
    return number, unpacked(_exactly(connection, size))


def _exactly(connection: socket.socket, size: int) -> bytes:
    received = bytearray(size)
    view = memoryview(received)
    while view:
        count = connection.recv_into(view)
        if not count:
            raise EOFError
        view = view[count:]
    return bytes(received)
