"""A filter for system calls: what decoding needs is allowed, all else is answered with an error.

The filter is a program of classic BPF over `struct seccomp_data` (see the kernel's
`userspace-api/seccomp_filter`). A call that it does not name gets ENOSYS, as from an older kernel, so that
libraries fall back to another one.
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Sequence

from model.runtime.sandbox.system import process_control, system_call

_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _AND, _EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06
_NUMBER_AT, _ARCH_AT, _ARGUMENTS_AT = 0, 4, 16
_SET_SECCOMP, _FILTER_MODE = 22, 2
_SET_MODE_FILTER = 1
# Otherwise older kernels slow the whole process down, against other processes that share its core.
_KEEP_SPECULATION = 1 << 2

#: Names and numbers of the calls that are always allowed: (x86_64, aarch64); None: there is no such call.
_ALLOWED: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63),
    "futex": (202, 98),
    "lseek": (8, 62),
    "write": (1, 64),
    "writev": (20, 66),
    "mmap": (9, 222),
    "munmap": (11, 215),
    "madvise": (28, 233),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "brk": (12, 214),
    "readv": (19, 65),
    "pread64": (17, 67),
    "preadv": (295, 69),
    "preadv2": (327, 286),
    "close": (3, 57),
    "close_range": (436, 436),
    "dup": (32, 23),
    "fadvise64": (221, 223),
    "mincore": (27, 232),
    "stat": (4, None),
    "fstat": (5, 80),
    "lstat": (6, None),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "access": (21, None),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "getcwd": (79, 17),
    "poll": (7, None),
    "ppoll": (271, 73),
    "select": (23, None),
    "pselect6": (270, 72),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "sched_getparam": (143, 121),
    "sched_getscheduler": (145, 120),
    "getpriority": (140, 141),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "gettimeofday": (96, 169),
    "time": (201, None),
    "times": (100, 153),
    "getrusage": (98, 165),
    "getrlimit": (97, 163),
    "sysinfo": (99, 179),
    "uname": (63, 160),
    "getcpu": (309, 168),
    "getrandom": (318, 278),
    "getpid": (39, 172),
    "getppid": (110, 173),
    "gettid": (186, 178),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "restart_syscall": (219, 128),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "rt_sigpending": (127, 136),
    "rt_sigsuspend": (130, 133),
    "rt_sigtimedwait": (128, 137),
    "sigaltstack": (131, 132),
    "set_robust_list": (273, 99),
    "get_robust_list": (274, 100),
    "set_tid_address": (218, 96),
    "rseq": (334, 293),
    "membarrier": (324, 283),
    "futex_waitv": (449, 449),
}
#: Calls that are allowed with some arguments; see `_conditions`.
_CONDITIONAL: dict[str, tuple[int | None, int | None]] = {
    "open": (2, None),
    "openat": (257, 56),
    "fcntl": (72, 25),
    "ioctl": (16, 29),
    "clone": (56, 220),
    "kill": (62, 129),
    "tgkill": (234, 131),
    "prctl": (157, 167),
    "prlimit64": (302, 261),
}
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

# The kernel's numbers, which are the same on both architectures.
_ACCESS_MODE, _CREATE, _TRUNCATE, _APPEND, _TEMPORARY = 3, 0o100, 0o1000, 0o2000, 0o20000000
#: Flags of `open` that are refused: all that write, and O_PATH, which Landlock lets pass.
_REFUSED = _ACCESS_MODE | _CREATE | _TRUNCATE | _APPEND | _TEMPORARY | 0o10000000
#: F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC: nothing that locks, sends signals or changes a pipe.
_HARMLESS_FCNTL = (0, 1, 2, 3, 1030)
_SET_NAME, _GET_NAME = 15, 16
#: CLONE_VM, CLONE_SIGHAND and CLONE_THREAD make a thread; no flag may ask for a new namespace.
_THREAD, _NAMESPACES = 0x100 | 0x800 | 0x10000, 0x7E020080

Instruction = tuple[int, int, int, int]


def supported() -> str | None:
    """Why there is no filter for this machine; None: there is one."""
    if platform.machine() not in _ARCHITECTURES or struct.calcsize("P") != 8:
        return f"there is no filter for {platform.machine()}"
    return None


def filter_system_calls() -> None:
    """Allow this process, and what it starts, only the system calls that decoding needs.

    Needs `no_new_privs`. It cannot be undone. Other threads of the process are not bound: there must be none.

    Raises:
        OSError: there is no filter for this architecture, or the kernel refuses it.
    """
    problem = supported()
    if problem:
        raise OSError(errno.ENOSYS, problem)
    program = build_filter(platform.machine(), os.getpid())
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    head = struct.pack("@HxxxxxxP", len(program), ctypes.addressof(buffer))
    number = {"x86_64": 317, "aarch64": 277}[platform.machine()]
    try:
        system_call(number, _SET_MODE_FILTER, _KEEP_SPECULATION, ctypes.c_char_p(head))
    except OSError:
        address = ctypes.cast(ctypes.c_char_p(head), ctypes.c_void_p).value
        process_control(_SET_SECCOMP, _FILTER_MODE, address or 0)


def build_filter(machine: str, process: int) -> list[Instruction]:
    """The program for an architecture: instructions of classic BPF (code, jump if true, if false, operand).

    Args:
        machine: "x86_64" or "aarch64".
        process: the id of the process, which may send signals to itself alone.
    """
    column, arch = _ARCHITECTURES[machine]
    program: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH_AT),
        (_EQUAL, 1, 0, arch),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    for numbers in _ALLOWED.values():
        if (number := numbers[column]) is not None:
            program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    for name, block in _conditions(process).items():
        if (number := _CONDITIONAL[name][column]) is not None:
            program += [(_EQUAL, 0, len(block), number), *block]
    return [*program, _error(errno.ENOSYS)]


def _conditions(process: int) -> dict[str, list[Instruction]]:
    """For each call that depends on its arguments, the instructions that decide. Each block returns."""
    return {
        "open": _if_masked(1, _REFUSED, 0),
        "openat": _if_masked(2, _REFUSED, 0),
        "clone": _if_masked(0, _THREAD | _NAMESPACES, _THREAD),
        "kill": _if_one_of(0, [process]),
        "tgkill": _if_one_of(0, [process]),
        "fcntl": _if_one_of(1, _HARMLESS_FCNTL),
        "prctl": _if_one_of(0, [_SET_NAME, _GET_NAME]),
        # Limits may be read, not set: the third argument points to a new value.
        "prlimit64": [
            (_LOAD, 0, 0, _low(2)),
            (_EQUAL, 0, 3, 0),
            (_LOAD, 0, 0, _low(2) + 4),
            (_EQUAL, 0, 1, 0),
            (_RETURN, 0, 0, _ALLOW),
            _error(errno.EPERM),
        ],
        # Python asks whether a file is a terminal.
        "ioctl": [_error(errno.ENOTTY)],
    }


def _if_masked(argument: int, mask: int, wanted: int) -> list[Instruction]:
    return [
        (_LOAD, 0, 0, _low(argument)),
        (_AND, 0, 0, mask),
        (_EQUAL, 0, 1, wanted),
        (_RETURN, 0, 0, _ALLOW),
        _error(errno.EPERM),
    ]


def _if_one_of(argument: int, values: Sequence[int]) -> list[Instruction]:
    checks = [(_EQUAL, len(values) - i, 0, value) for i, value in enumerate(values)]
    return [(_LOAD, 0, 0, _low(argument)), *checks, _error(errno.EPERM), (_RETURN, 0, 0, _ALLOW)]


def _low(argument: int) -> int:
    """Where the lower 32 bits of an argument are; both architectures are little-endian."""
    return _ARGUMENTS_AT + 8 * argument


def _error(number: int) -> Instruction:
    return (_RETURN, 0, 0, _ERROR | number)
