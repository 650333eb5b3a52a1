"""Looks at the processes of this machine, by what `/proc` says of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def children(pid: int) -> list[int]:
    """The processes that a process has started, directly."""
    return [child for child, fields in _processes() if int(fields[1]) == pid and fields[0] not in "ZX"]


def running(pid: int) -> bool:
    """Whether a process is alive."""
    return any(process == pid and fields[0] not in "ZX" for process, fields in _processes())


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for a condition; an AssertionError when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _processes() -> list[tuple[int, list[str]]]:
    """The fields of every process's `stat` after its name: state, parent, …"""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            found.append((int(stat.parent.name), stat.read_text().rpartition(")")[2].split()))
        except OSError:
            continue
    return found
