"""Landlock: the kernel lets this process open one file for reading, and no other file for anything.

See the kernel's `userspace-api/landlock`. Available from Linux 5.13 on, where it is turned on.
"""

import ctypes
import os
import stat
import struct
from collections.abc import Callable, Sequence

from model.runtime.sandbox.system import system_call

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION, _PATH_BENEATH = 1, 1
_WRITE_FILE, _READ_FILE, _READ_FOLDER = 1 << 1, 1 << 2, 1 << 3
#: To control a device. Older versions do not ask for it.
_CONTROL, _CONTROL_ABI = 1 << 15, 5
#: For the ABI from which on it is known: how many kinds of access to files there are.
_FILE_RIGHTS = ((1, 13), (2, 14), (3, 15), (5, 16))
#: Binding and connecting TCP sockets; abstract Unix sockets and signals to processes outside.
_NET_ABI, _NET_RIGHTS = 4, 0b11
_SCOPE_ABI, _SCOPES = 6, 0b11


def landlock_abi() -> int:
    """The version of Landlock's interface.

    Raises:
        OSError: the kernel has no Landlock, or it is turned off.
    """
    return system_call(_CREATE_RULESET, None, 0, _VERSION)


def allow_one_file(path: bytes, devices: Sequence[bytes] = (), readable: Sequence[bytes] = ()) -> int:
    """Forbid this process to open anything but the regular file at `path`, and that only for reading.

    Args:
        path: the file.
        devices: character devices that it may also open, for reading and writing, and control.
        readable: files and folders that it may also read.

    If there is no regular file, nothing at all can be opened. Needs `no_new_privs`. It binds what this thread
    starts later too, and cannot be undone.

    Returns:
        The version of Landlock's interface: newer ones forbid more.

    Raises:
        OSError: the kernel has no Landlock, or refuses the rules.
    """
    abi = landlock_abi()
    kinds = max(count for since, count in _FILE_RIGHTS if since <= abi)
    rules = struct.pack("=Q", (1 << kinds) - 1)
    if abi >= _NET_ABI:
        rules += struct.pack("=Q", _NET_RIGHTS)
    if abi >= _SCOPE_ABI:
        rules += struct.pack("=Q", _SCOPES)
    ruleset = system_call(_CREATE_RULESET, ctypes.c_char_p(rules), len(rules), 0)
    try:
        _allow(ruleset, path, stat.S_ISREG, _READ_FILE)
        control = _CONTROL if abi >= _CONTROL_ABI else 0
        for device in devices:
            _allow(ruleset, device, stat.S_ISCHR, _READ_FILE | _WRITE_FILE | control)
        for place in readable:
            _allow(ruleset, place, stat.S_ISREG, _READ_FILE)
            _allow(ruleset, place, stat.S_ISDIR, _READ_FILE | _READ_FOLDER)
        system_call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return abi


def _allow(ruleset: int, path: bytes, is_kind: Callable[[int], bool], rights: int) -> None:
    """Allow access to a path if it is of a kind. A rule for a folder holds for all that is below it."""
    try:
        file = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (OSError, ValueError):
        return
    try:
        if is_kind(os.fstat(file).st_mode):
            rule = struct.pack("=Qi", rights, file)
            system_call(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.c_char_p(rule), 0)
    finally:
        os.close(file)
