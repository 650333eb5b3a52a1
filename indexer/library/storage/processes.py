"""Tells whether a process that a lock or a lease names still runs."""

import os
import socket
from pathlib import Path


def this_place() -> str:
    """Where a process number means the same process: the computer's name, and the name space of processes."""
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        space = "pid"
    return f"{socket.gethostname()} {space}"


def has_ended(number: int) -> bool:
    """Whether there is no process of this number here."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass  # it is another user's
    return False
