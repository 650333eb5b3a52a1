"""Looks at the processes of this machine, by what `/proc` says of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def children(pid: int) -> list[int]:
    """The processes that a process has started, directly."""
    return [child for child, fields in _processes() if int(fields[1]) == pid and fields[0] not in "ZX"]


def descendants(root: int) -> list[int]:
    """The processes that a process has started, and those that these have."""
    started: dict[int, list[int]] = {}
    for process, fields in _processes():
        if fields[0] not in "ZX":
            started.setdefault(int(fields[1]), []).append(process)
    found: list[int] = []
    pending = [root]
    while pending:
        new = started.get(pending.pop(), [])
        found += new
        pending += new
    return found


def running(pid: int) -> bool:
    """Whether a process is alive."""
    return any(process == pid and fields[0] not in "ZX" for process, fields in _processes())


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for a condition; an AssertionError when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def peak_bytes(pid: int) -> int:
    """The most resident memory that a process has had so far; 0 when it has ended."""
    return _status(pid, "VmHWM") << 10


def resident_bytes(pid: int) -> int:
    """The resident memory of a process; 0 when it has ended."""
    return _status(pid, "VmRSS") << 10


def thread_count(pid: int) -> int:
    """The number of a process's threads; 0 when it has ended."""
    return _status(pid, "Threads")


def open_file_count(pid: int) -> int:
    """The number of a process's open file descriptors; 0 when it has ended."""
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return 0


def _processes() -> list[tuple[int, list[str]]]:
    """The fields of every process's `stat` after its name: state, parent, …"""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            found.append((int(stat.parent.name), stat.read_text().rpartition(")")[2].split()))
        except OSError:
            continue
    return found


def _status(pid: int, field: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), 0)
