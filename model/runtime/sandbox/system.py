"""System calls that Python has no function for."""

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)


def system_call(number: int, *arguments: object) -> int:
    """Make a system call by its number; integers are passed as 64 bits.

    Raises:
        OSError: the kernel refuses it, or does not know it.
    """
    values = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return _checked(_libc.syscall(ctypes.c_long(number), *values))


def process_control(option: int, *arguments: int) -> int:
    """Call `prctl`.

    Raises:
        OSError: the kernel refuses it, or does not know it.
    """
    values = [ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)[:4]]
    return _checked(_libc.prctl(ctypes.c_int(option), *values))


def enter_namespaces(flags: int) -> None:
    """Call `unshare`.

    Raises:
        OSError: the kernel refuses it.
    """
    _checked(_libc.unshare(ctypes.c_int(flags)))


def _checked(result: int) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
