"""Starts a job's process: sets its limits, then becomes the program.

`python -m service.jobs.launcher PARENT MEMORY_MIB PROGRAM ARGUMENT…`; MEMORY_MIB 0 is no limit. It imports
little: it runs before each job.
"""

import contextlib
import os
import resource
import signal
import sys

from model.runtime.resource_limits import lower_limits
from model.runtime.sandbox.rights import be_ended_first, die_with_parent

_NICE = 10


def main(arguments: list[str]) -> None:
    """Set the limits, and run the program in place of this one."""
    parent, memory_mib, program = int(arguments[0]), int(arguments[1]), arguments[2:]
    # A run without its server saves what it has done, and ends. The signal stays set in the program.
    with contextlib.suppress(OSError):
        die_with_parent(parent, signal.SIGINT)
    os.nice(_NICE)
    be_ended_first()
    if memory_mib:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        lower_limits([(resource.RLIMIT_DATA, memory_mib << 20, hard)])
    os.execv(program[0], program)  # noqa: S606  the program is this Python


if __name__ == "__main__":
    main(sys.argv[1:])
