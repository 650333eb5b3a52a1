"""Tries a stranger's file in a process with limits first, where a crash or a bomb does no harm.

Native libraries may end the process, or take all memory, when a file is made to do so. The child imports its
libraries, limits itself (`limit_this_process`), tries the file, and prints what it found.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model.runtime.own_code import import_path
from model.runtime.resource_limits import lower_limits

#: One thread each: the stacks and arenas of many threads would count as memory.
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "MALLOC_ARENA_MAX"),
    "1",
)
#: A process that waits instead of computing is ended after this many times its processor time.
_PATIENCE = 3
_SHOWN = 300


@dataclass(frozen=True)
class Limits:
    """What a child may use: memory beyond what its libraries take, and time on a processor."""

    memory_bytes: int
    cpu_seconds: int


class ChildEndedError(Exception):
    """The child ended before it could say what it found; the message says how it ended."""


def ask_child(module: str, arguments: Sequence[str], limits: Limits) -> list[str]:
    """Run a module of ours as a limited child, and return the lines that it found.

    Args:
        module: its name. Its main program calls `limit_this_process`, then `answer`.
        arguments: its arguments.
        limits: its limits.

    Raises:
        ChildEndedError: it was ended by a limit, by a signal or by an error.
    """
    environment = {**os.environ, **_ONE_THREAD, "PYTHONPATH": import_path()}
    numbers = [str(limits.memory_bytes), str(limits.cpu_seconds)]
    try:
        run = subprocess.run(
            [sys.executable, "-P", "-m", module, *numbers, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment,
            timeout=limits.cpu_seconds * _PATIENCE,
            check=False,
            # Ctrl-C reaches the parent, which ends the child.
            process_group=0,
        )
    except subprocess.TimeoutExpired:
        raise ChildEndedError(f"no answer within {limits.cpu_seconds * _PATIENCE} s") from None
    except OSError as error:
        raise ChildEndedError(f"it could not be started: {error}") from error
    if run.returncode < 0:
        number = -run.returncode
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        used_up = number in (signal.SIGXCPU, signal.SIGKILL)
        raise ChildEndedError(f"{name}, {limits.cpu_seconds} s of computing used up" if used_up else name)
    try:
        found = json.loads(run.stdout)
        return [str(line) for line in found]
    except (ValueError, TypeError):
        last = run.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise ChildEndedError(last[:_SHOWN] or f"exit code {run.returncode}") from None


def limit_this_process(arguments: list[str]) -> list[str]:
    """Limit this process as its first two arguments say, and return the others."""
    memory, seconds = int(arguments[0]), int(arguments[1])
    memory += _address_space()
    lower_limits(
        (
            (resource.RLIMIT_AS, memory, memory),
            (resource.RLIMIT_CPU, seconds, seconds + 1),
            (resource.RLIMIT_CORE, 0, 0),
            (resource.RLIMIT_FSIZE, 0, 0),
        )
    )
    return arguments[2:]


def answer(found: Sequence[str]) -> None:
    """Tell the parent what was found."""
    sys.stdout.write(json.dumps(list(found)))
    sys.stdout.flush()


def _address_space() -> int:
    """The address space that this process has by now, in bytes; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError):
        return 1 << 32
    return pages * resource.getpagesize()
