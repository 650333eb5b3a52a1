"""What a process may use and do: resource limits, privileges, capabilities, the network."""

import contextlib
import ctypes
import os
import resource
import signal
import struct
import sys
from pathlib import Path

from model.runtime.resource_limits import lower_limits
from model.runtime.sandbox.system import enter_namespaces, process_control, system_call

_SET_DEATH_SIGNAL, _NO_NEW_PRIVILEGES = 1, 38
_NEW_USER, _NEW_NET = 0x10000000, 0x40000000
#: The numbers of the system calls `capget` and `capset`.
_CAPABILITY_CALLS = {"x86_64": (125, 126), "aarch64": (90, 91)}
_CAPABILITY_VERSION = 0x20080522
#: To read files in spite of their permissions: the first of these that the process has is kept.
_READING_CAPABILITIES = (2, 1)  # CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE
#: Added to the badness of a decoding process: when memory runs out, the kernel ends it and not the indexer.
_FIRST_TO_END = 500
#: After the limit, how many seconds of CPU time until the kernel ends the process for good.
_GRACE_SECONDS = 5


def die_with_parent(parent: int, with_signal: signal.Signals = signal.SIGKILL) -> None:
    """Let the kernel end this process when its parent ends, even while a decoder hangs."""
    if sys.platform == "linux":
        process_control(_SET_DEATH_SIGNAL, with_signal)
        if os.getppid() != parent:
            sys.exit(1)


def be_ended_first() -> None:
    """When memory runs out, let the kernel end this process and what it starts before others."""
    path = Path("/proc/self/oom_score_adj")
    with contextlib.suppress(OSError, ValueError):
        if int(path.read_text(encoding="ascii")) < _FIRST_TO_END:
            path.write_text(str(_FIRST_TO_END), encoding="ascii")


def leave_network() -> None:
    """Move this process, and what it starts, to a namespace with no network. It must have one thread.

    Without the right to do so, it also gets a namespace of users, in which nobody has rights elsewhere. A
    process that has other rights would lose them there, so it stays.

    Raises:
        OSError: the kernel refuses it.
    """
    try:
        enter_namespaces(_NEW_NET)
    except PermissionError:
        if any(_capabilities()):
            raise
        enter_namespaces(_NEW_USER | _NEW_NET)


def forbid_new_privileges() -> None:
    """Let no program that this process may start have more rights than it.

    Raises:
        OSError: the kernel does not know it.
    """
    process_control(_NO_NEW_PRIVILEGES, 1)


def limit_resources(*, memory_bytes: int | None, cpu_seconds: int, open_files: int, file_bytes: int) -> None:
    """Set limits that the process cannot raise again.

    Args:
        memory_bytes: of address space; None: not limited.
        cpu_seconds: of all threads together; SIGXCPU ends the process.
        open_files: open at the same time.
        file_bytes: size of a file that it writes.

    Raises:
        OSError: the system refuses a limit.
    """
    # Not RLIMIT_NPROC: it counts all processes of the user, and new ones are forbidden otherwise.
    if memory_bytes is not None:
        lower_limits(((resource.RLIMIT_AS, memory_bytes, memory_bytes),))
    lower_limits(
        (
            (resource.RLIMIT_CPU, cpu_seconds, cpu_seconds + _GRACE_SECONDS),
            (resource.RLIMIT_NOFILE, open_files, open_files),
            (resource.RLIMIT_FSIZE, file_bytes, file_bytes),
            (resource.RLIMIT_CORE, 0, 0),
        )
    )


def drop_capabilities() -> None:
    """Give up what only root may do, but for reading files.

    Raises:
        OSError: the kernel refuses it.
    """
    effective, permitted = _capabilities()
    kept = next((1 << number for number in _READING_CAPABILITIES if effective >> number & 1), 0)
    if permitted == kept:
        return
    low, high = kept & 0xFFFFFFFF, kept >> 32
    data = struct.pack("=6I", low, low, 0, high, high, 0)
    system_call(_CAPABILITY_CALLS[os.uname().machine][1], _header(), ctypes.c_char_p(data))


def _capabilities() -> tuple[int, int]:
    """The sets of effective and permitted capabilities; nothing where they cannot be read."""
    if os.uname().machine not in _CAPABILITY_CALLS:
        return 0, 0
    data = ctypes.create_string_buffer(24)
    system_call(_CAPABILITY_CALLS[os.uname().machine][0], _header(), data)
    low = struct.unpack_from("=3I", data)
    high = struct.unpack_from("=3I", data, 12)
    return low[0] | high[0] << 32, low[1] | high[1] << 32


def _header() -> ctypes.Array[ctypes.c_char]:
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    return ctypes.create_string_buffer(header, len(header))
