"""The decoding process: receives jobs from a socket and sends back what `decode` yields.

A decoder that crashes or hangs takes nothing but this process with it. The process imports neither Lance,
FAISS nor ONNX Runtime.
"""

import ctypes
import os
import signal
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection

from indexer.decode import DecodeMessage, decode


@dataclass(frozen=True)
class Ready:
    """The process has started and takes jobs."""


#: What the process sends: `Ready` once, then for each job what `decode` yields.
WorkerMessage = Ready | DecodeMessage


def main() -> None:
    """Answer jobs until the socket closes. Arguments: the socket's file descriptor and the parent's id."""
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    # Ctrl-C is for the parent, which decides what is still worth finishing.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with_parent(parent)
    with Connection(descriptor) as connection:
        try:
            connection.send(Ready())
            while True:
                for message in decode(connection.recv()):
                    connection.send(message)
        except (EOFError, ConnectionError):
            return


def _die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent is gone, even while a decoder hangs."""
    if sys.platform == "linux":
        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit(1)
