"""Starts a job's process: sets its limits, then becomes the program.

`python -m service.jobs.launcher PARENT MEMORY_MIB PROGRAM ARGUMENT…`; MEMORY_MIB 0 is no limit. It imports
little: it runs before each job.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

_SET_PARENT_DEATH_SIGNAL = 1
_NICE = 10
#: When the computer's memory runs out, the kernel ends a job rather than the service.
_OOM_SCORE = 500


def main(arguments: list[str]) -> None:
    """Set the limits, and run the program in place of this one."""
    parent, memory_mib, program = int(arguments[0]), int(arguments[1]), arguments[2:]
    # A run without its server saves what it has done, and ends. The signal stays set in the program.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, ctypes.c_ulong(signal.SIGINT))
    if os.getppid() != parent:
        return
    os.nice(_NICE)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))
    if memory_mib:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = memory_mib << 20
        resource.setrlimit(
            resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard)
        )
    os.execv(program[0], program)  # noqa: S606  the program is this Python


if __name__ == "__main__":
    main(sys.argv[1:])
