"""What /proc says of processes: their descendants, memory, threads and open files."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for a condition; an AssertionError when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def running(pid: int) -> bool:
    """Whether a process is alive: it has not ended, nor waits for its parent to take note of that."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def children(pid: int) -> list[int]:
    """The processes that a process has started, directly, and that are alive."""
    return [child for child in descendants(pid) if parent_of(child) == pid and running(child)]


def decoding_processes(pid: int) -> list[int]:
    """The decoding processes that a process has started itself; a browser may run beside them."""
    return [child for child in children(pid) if "run_worker" in _command_line(child)]


def descendants(root: int) -> list[int]:
    """The ids of the processes that a process has started, and of those that they have."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (parent := parent_of(int(entry.name))) is not None:
            children.setdefault(parent, []).append(int(entry.name))
    found: list[int] = []
    pending = [root]
    while pending:
        started = children.get(pending.pop(), [])
        found += started
        pending += started
    return found


def parent_of(pid: int) -> int | None:
    """The id of a process's parent; None when the process has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    # The process's name, in brackets, may contain brackets.
    return int(stat.rpartition(")")[2].split()[1])


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def peak_bytes(pid: int) -> int:
    """The most resident memory that a process has had so far; 0 when it has ended."""
    return _status(pid, "VmHWM") << 10


def resident_bytes(pid: int) -> int:
    """The resident memory of a process; 0 when it has ended."""
    return _status(pid, "VmRSS") << 10


def thread_count(pid: int) -> int:
    """The number of a process's threads; 0 when it has ended."""
    return _status(pid, "Threads")


def named_threads(pid: int, beginning: str) -> int:
    """The number of a process's threads whose name begins with `beginning`; 0 when it has ended."""
    count = 0
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                count += (thread / "comm").read_text(encoding="utf-8", errors="replace").startswith(beginning)
    return count


def open_file_count(pid: int) -> int:
    """The number of a process's open file descriptors; 0 when it has ended."""
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return 0


def _status(pid: int, field: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), 0)
