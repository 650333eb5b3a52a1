"""A decoding process that a file has taken over: it runs an attack, in place of a decoder.

The name of the job's file chooses the attack; a file of any other name is decoded. What comes of an attack is
the reason of the file's verdict: "blocked" with the error, or "done". Three variables tell it what is there:
`HOSTILE_SECRET` names a file that no decoder may read, in a folder that it may not change,
`HOSTILE_PORT` a port that somebody listens on, `HOSTILE_INDEXER` the indexer's process.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import pickle
import resource
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from indexer.decode import (
    Alive,
    DecodedSegment,
    DecodeJob,
    DecodeMessage,
    FileVerdict,
    Hashed,
    decode_file,
)
from indexer.engines import messages, worker
from indexer.texts import SourceLine, SourceLines, SourceMessage, SourceRead, TextJob, read_source

#: To be run in place of the indexer's own decoding process.
COMMAND = "from tests.support.hostile_decoder import run; run()"

_libc = ctypes.CDLL(None, use_errno=True)
_SECRET = Path(os.environ.get("HOSTILE_SECRET", "/etc/passwd"))
_PORT = int(os.environ.get("HOSTILE_PORT", "9"))
_INDEXER = int(os.environ.get("HOSTILE_INDEXER", "1"))
_own_file = Path()


@dataclass(frozen=True)
class Raw:
    """Bytes to send as they are."""

    data: bytes


def run() -> None:
    """Decode nothing: attack."""
    parts_of = messages.message_parts

    def message_parts(message: DecodeMessage | SourceMessage | Raw) -> list[bytes | memoryview]:
        if not isinstance(message, Raw):
            return parts_of(message)
        return [message.data]

    worker.message_parts = message_parts  # type: ignore[attr-defined]
    worker.decode_file = _attack  # type: ignore[assignment, attr-defined]
    worker.read_source = _attack_by_text  # type: ignore[assignment, attr-defined]
    worker.run_worker()


def _attack(job: DecodeJob) -> Iterator[DecodeMessage | Raw]:
    global _own_file
    _own_file = job.file
    if job.file.stem in SENDS:
        yield from SENDS[job.file.stem](job)
    if job.file.stem not in ATTACKS:
        yield from decode_file(job)
        return
    try:
        result = f"done: {ATTACKS[job.file.stem]()}"
    except (OSError, MemoryError, RuntimeError, ValueError) as error:
        result = f"blocked: {type(error).__name__}"
    yield Hashed("0" * 64, 0, 0)
    yield FileVerdict("corrupt", result, None, "0" * 64, 0, 0)


def _attack_by_text(job: TextJob) -> Iterator[SourceMessage | Raw]:
    """What the language in the name of a subtitle file says; any other file is read."""
    match job.language:
        case "die":
            yield SourceLines(None, (SourceLine(0.0, 1.0, "last words"),))
            os.kill(os.getpid(), signal.SIGSEGV)
        case "han":
            _hang()
        case "raw":
            yield Raw(bytes(range(256)) * 4096)
        case "spy":
            try:
                text = _SECRET.read_text()
            except OSError:
                text = "blocked"
            yield SourceLines(None, (SourceLine(0.0, 1.0, text),))
            yield SourceRead("ok", None)
        case _:
            yield from read_source(job)


def _call(number: int, *arguments: int) -> str:
    """A system call as a hostile program would make it, without the C library's own checks."""
    result = _libc.syscall(ctypes.c_long(number), *(ctypes.c_long(value) for value in arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return str(result)


def _text(value: str) -> int:
    """The address of a text, which lives as long as the process."""
    _kept.append(ctypes.create_string_buffer(os.fsencode(value)))
    return ctypes.addressof(_kept[-1])


_kept: list[ctypes.Array[ctypes.c_char]] = []


def _write_to(path: Path, flags: int) -> str:
    descriptor = os.open(path, flags, 0o600)
    return str(os.write(descriptor, b"x"))


def _read_from(path: Path) -> str:
    return str(os.open(path, os.O_RDONLY))


def _connect(kind: int, address: tuple[str, int] | str) -> None:
    with socket.socket(kind, socket.SOCK_STREAM) as client:
        client.connect(address)


def _bind() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))


def _name_look_up() -> object:
    return socket.getaddrinfo("localhost", 80)


def _send_a_datagram() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        return client.sendto(b"x", ("127.0.0.1", _PORT))


def _fork() -> str:
    if os.fork() == 0:
        os._exit(0)
    return "a process"


def _memory() -> str:
    blocks = [bytearray(256 << 20) for _ in range(8)]
    return f"{len(blocks)} blocks"


def _threads() -> str:
    done = threading.Event()
    try:
        for _ in range(1000):
            threading.Thread(target=done.wait, daemon=True).start()
    finally:
        done.set()
    return "all threads"


def _raise_limits() -> str:
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return "more memory"


def _trace() -> str:
    if _libc.ptrace(16, _INDEXER, 0, 0) < 0:  # PTRACE_ATTACH
        raise OSError(ctypes.get_errno(), "refused")
    return "attached"


def _descriptors() -> str:
    """Whatever is open beside the standard streams and the socket."""
    found = []
    for number in range(64):
        try:
            os.fstat(number)
        except OSError:
            continue
        found.append(number)
    if len(found) <= 4:
        raise PermissionError(errno.EPERM, "nothing else is open")
    return f"open: {found}"


def _steal_descriptor() -> str:
    return _call(438, int(_call(434, _INDEXER, 0)), 0, 0)  # pidfd_getfd of pidfd_open


def _old_interface() -> str:
    """A system call of 32-bit programs, whose numbers are others."""
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, 20 (getpid); int 0x80; ret
    function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    return str(function())


def _hang() -> str:
    time.sleep(600)
    return "awake"


def _spin() -> str:
    while True:
        pass


ATTACKS: dict[str, Callable[[], object]] = {
    # Files
    "read another file": lambda: _SECRET.read_bytes(),
    "read another file by descriptor": lambda: _call(257, -100, _text(str(_SECRET)), os.O_PATH),
    "read a process's memory": lambda: _read_from(Path("/proc/self/mem")),
    "read a folder": lambda: list(_SECRET.parent.iterdir()),
    "read a device": lambda: _read_from(Path("/dev/zero")),
    "create a file": lambda: _write_to(_SECRET.parent / "new", os.O_WRONLY | os.O_CREAT),
    "write another file": lambda: _write_to(_SECRET, os.O_WRONLY),
    "write its own file": lambda: _write_to(_own_file, os.O_WRONLY),
    "append to its own file": lambda: _write_to(_own_file, os.O_RDWR | os.O_APPEND),
    "empty its own file": lambda: os.truncate(_own_file, 0),
    "empty its own file on opening": lambda: os.open(_own_file, os.O_RDONLY | os.O_TRUNC),
    "write a file without a name": lambda: os.open(_SECRET.parent, os.O_TMPFILE | os.O_RDWR),
    "make a folder": lambda: (_SECRET.parent / "folder").mkdir(),
    "delete its own file": lambda: _own_file.unlink(),
    "delete another file": lambda: _SECRET.unlink(),
    "rename a file": lambda: _own_file.rename(_own_file.with_suffix(".new")),
    "link a file": lambda: os.link(_SECRET, _own_file.with_suffix(".new")),
    "link a file by name": lambda: _own_file.with_suffix(".new").symlink_to(_SECRET),
    "change permissions": lambda: _SECRET.chmod(0o777),
    "change times": lambda: os.utime(_own_file, (1, 1)),
    "make a device": lambda: os.mknod(_SECRET.parent / "device", 0o020666, os.makedev(1, 5)),
    "open with openat2": lambda: _call(437, -100, _text(str(_SECRET)), _text("\0" * 24), 24),
    "open by handle": lambda: _call(304, -100, _text("\0" * 64), 0),
    "write memory as a file": lambda: os.write(os.memfd_create("x"), b"x"),
    # Network
    "connect": lambda: _connect(socket.AF_INET, ("127.0.0.1", _PORT)),
    "connect to a Unix socket": lambda: _connect(socket.AF_UNIX, str(_SECRET.with_suffix(".socket"))),
    "listen": _bind,
    "look up a name": _name_look_up,
    "send a datagram": _send_a_datagram,
    "make a socket": lambda: _call(41, 2, 1, 0),
    "make a raw socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "make a pair of sockets": lambda: socket.socketpair(),
    # Programs and processes
    "run a program": lambda: os.execv("/bin/true", ["true"]),
    "run a program as a child": lambda: subprocess.run(["/bin/true"], check=True),
    "spawn a program": lambda: os.posix_spawn("/bin/true", ["true"], {}),
    "fork": _fork,
    "fork by its number": lambda: _call(57),
    "clone a process": lambda: _call(56, signal.SIGCHLD, 0, 0, 0, 0),
    "clone a process, newer": lambda: _call(435, _text("\0" * 88), 88),
    "enter a namespace": lambda: _call(272, 0x10000000),
    "start a thread in a namespace": lambda: _call(56, 0x10000000 | 0x10F00, 0, 0, 0, 0),
    "signal the indexer": lambda: os.kill(_INDEXER, 0),
    "stop the decoding process": lambda: os.kill(os.getppid(), signal.SIGSTOP),
    "signal its group": lambda: os.kill(0, 0),
    "signal everybody": lambda: os.kill(-1, 0),
    "signal a thread of the indexer": lambda: _call(200, _INDEXER, 0),
    "queue a signal": lambda: _call(129, _INDEXER, 0, _text("\0" * 128)),
    "trace the indexer": _trace,
    "be traced": lambda: _call(101, 0, 0, 0, 0),
    "read the indexer's memory": lambda: _call(310, _INDEXER, 0, 0, 0, 0, 0),
    "open the indexer's memory": lambda: _read_from(Path(f"/proc/{_INDEXER}/mem")),
    "take a descriptor of the indexer": _steal_descriptor,
    "find an open descriptor": _descriptors,
    "limit the indexer": lambda: _call(302, _INDEXER, 7, _text("\0" * 16), 0),
    # The kernel
    "io_uring": lambda: _call(425, 1, _text("\0" * 120)),
    "bpf": lambda: _call(321, 0, _text("\0" * 64), 64),
    "keys": lambda: _call(250, 0, -3, 1),
    "mount": lambda: _call(165, _text("none"), _text("/mnt"), _text("tmpfs"), 0, 0),
    "change the root": lambda: os.chroot("/"),
    "watch performance": lambda: _call(298, _text("\0" * 128), 0, -1, -1, 0),
    "handle page faults": lambda: _call(323, 0),
    "change the user": lambda: os.setuid(65534),
    "allow its own system calls": lambda: _call(317, 1, 0, _text("\0" * 16)),
    "undo no_new_privs": lambda: _call(157, 38, 0, 0, 0, 0),
    "use the numbers of x32": lambda: _call(0x40000000 + 39),
    "use the numbers of 32 bits": _old_interface,
    # Resources
    "take memory": _memory,
    "start threads without end": _threads,
    "raise its limits": _raise_limits,
    "raise its limits by number": lambda: _call(302, 0, 9, _text("\xff" * 16), 0),
    "lower its own nice value": lambda: os.nice(-5),
    "hang": _hang,
    "spin": _spin,
}


class _Code:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return eval, (f"open({str(_SECRET.with_name('unpickled'))!r}, 'w')",)


def _send_pickles(job: DecodeJob) -> Iterator[DecodeMessage | Raw]:
    data = pickle.dumps(_Code())
    yield Raw(len(data).to_bytes(4, "big") + data)


def _send_noise(job: DecodeJob) -> Iterator[DecodeMessage | Raw]:
    yield from _first_segment(job)
    yield Raw(bytes(range(256)) * 4096)


def _send_bit_by_bit(job: DecodeJob) -> Iterator[DecodeMessage | Raw]:
    yield Raw(b"\x04\0\0\0" + (1000).to_bytes(4, "little"))
    while True:
        yield Raw(b"\0")
        time.sleep(0.05)


def _send_life_signs(job: DecodeJob) -> Iterator[DecodeMessage | Raw]:
    yield from _first_segment(job)
    while True:
        yield Alive()
        time.sleep(0.01)


def _send_nothing_but_life_signs(job: DecodeJob) -> Iterator[DecodeMessage | Raw]:
    while True:
        yield Alive()
        time.sleep(0.01)


def _die_once(job: DecodeJob) -> Iterator[DecodeMessage | Raw]:
    """Not confined: dies when it is run first, and notes when it is at work the second time."""
    if not _mark("died").exists():
        _mark("died").touch()
        yield from _first_segment(job)
        os.kill(os.getpid(), signal.SIGKILL)
    yield from _work_slowly(job)


def _work_slowly(job: DecodeJob) -> Iterator[DecodeMessage | Raw]:
    """Not confined: notes when it is at work. The first one waits for the second: they work together."""
    with _mark("at work").open("a") as log:
        log.write(f"{time.monotonic()} begin {job.file.stem}\n")
        log.flush()
        deadline = time.monotonic() + 30
        while _mark("at work").read_text().count("begin") < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)
        log.write(f"{time.monotonic()} end {job.file.stem}\n")
    yield Alive()


def _mark(name: str) -> Path:
    return _SECRET.with_name(name)


def _first_segment(job: DecodeJob) -> Iterator[DecodeMessage | Raw]:
    for message in decode_file(job):
        yield message
        if isinstance(message, DecodedSegment):
            return


#: What is sent, by the file's name.
SENDS: dict[str, Callable[[DecodeJob], Iterator[DecodeMessage | Raw]]] = {
    "pickles": _send_pickles,
    "noise": _send_noise,
    "bit by bit": _send_bit_by_bit,
    "alive for ever": _send_life_signs,
    "never begins": _send_nothing_but_life_signs,
    "die once": _die_once,
    "slow 1": _work_slowly,
    "slow 2": _work_slowly,
    "slow 3": _work_slowly,
}
