"""The decoding process: receives jobs from a socket and sends back what `decode_file` yields.

A crash or a hang of a decoder affects only this process. The process imports neither Lance,
FAISS nor ONNX Runtime.
"""

import ctypes
import os
import signal
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection

from indexer.decode import DecodeMessage, decode_file


@dataclass(frozen=True)
class Ready:
    """The process has started and takes jobs."""


#: What the process sends: `Ready` once, then for each job what `decode_file` yields.
WorkerMessage = Ready | DecodeMessage


def run_worker() -> None:
    """Answer jobs until the socket closes.

    The process's arguments are the socket's file descriptor and the id of the parent process.
    """
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    # Ctrl-C is handled by the parent, which decides what to finish.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with_parent(parent)
    with Connection(descriptor) as connection:
        try:
            connection.send(Ready())
            while True:
                for message in decode_file(connection.recv()):
                    connection.send(message)
        except (EOFError, ConnectionError):
            return


def _die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent ends, even while a decoder hangs."""
    if sys.platform == "linux":
        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit(1)
