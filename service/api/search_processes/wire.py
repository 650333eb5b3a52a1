"""Messages between the server and its search processes: a number, a length and a pickle.

Only processes that the server has started are at the other end, and no file or client can write here.
"""

import pickle
import struct
from typing import Any, BinaryIO

#: The number of a message, which its answer has too, and the bytes of its pickle.
HEAD = struct.Struct("<QQ")


def packed(number: int, message: Any) -> bytes:
    """A message in bytes."""
    content = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return HEAD.pack(number, len(content)) + content


def unpacked(content: bytes) -> Any:
    """The message in a pickle."""
    return pickle.loads(content)  # noqa: S301  from a process of ours


def receive(stream: BinaryIO) -> tuple[int, Any]:
    """Wait for a message of a stream that waits, such as a file of a socket. → Its number, and the message.

    Raises:
        EOFError: the other end is closed.
    """
    number, size = HEAD.unpack(_exactly(stream, HEAD.size))
    return number, unpacked(_exactly(stream, size))


def _exactly(stream: BinaryIO, size: int) -> bytes:
    received = stream.read(size)
    if len(received) < size:
        raise EOFError
    return received
