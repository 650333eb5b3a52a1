"""Deliberate faults for tests: kill this process, or hang it, at a named point.

`REELFIND_FAULT="kill publish.renamed 2"` kills the process the second time it reaches the point; `hang` in
place of `kill` makes it wait for ever. `REELFIND_FAULT_LOG` names a file to which every point reached is
appended. With neither set, a checkpoint only reads a constant.
"""

import os
import signal
import threading
import time
from pathlib import Path

_FAULT = os.environ.get("REELFIND_FAULT", "").split(" ")
_LOG = os.environ.get("REELFIND_FAULT_LOG", "")
_ACTIVE = len(_FAULT) == 3 or bool(_LOG)
# Opened at once: a process that is confined to one file can open no other.
_log = Path(_LOG).open("a", encoding="utf-8", buffering=1) if _LOG else None  # noqa: SIM115
_lock = threading.Lock()
_reached = 0


def is_logging() -> bool:
    """Whether the points reached are written to a file."""
    return _log is not None


def reach(step: str | None, name: str) -> None:
    """Mark a point of a step; None: of one that has no points."""
    if step is not None:
        checkpoint(f"{step}.{name}")


def checkpoint(name: str) -> None:
    """Mark a point of a run at which a test may kill or hang the process."""
    if not _ACTIVE:
        return
    global _reached
    with _lock:
        if _log is not None:
            _log.write(name + "\n")
        if len(_FAULT) != 3 or _FAULT[1] != name:
            return
        _reached += 1
        if _reached != int(_FAULT[2]):
            return
    if _FAULT[0] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    while True:
        time.sleep(60)
