"""What a decoder that a file has taken over can reach: each attack is tried, confined and not."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexer.decode import DecodeSpec, FileVerdict
from indexer.engines import worker_process
from indexer.engines.local_decoders import Bounds, Died, ProcessDecoder
from model.runtime.errors import ReelfindError
from model.runtime.preprocessing import Resizing
from model.runtime.sandbox.confinement import NEEDED, Confinement, Part, SandboxMode
from model.runtime.sandbox.landlock import landlock_abi
from model.runtime.sandbox.seccomp import build_filter, supported
from tests.support.hostile_decoder import ATTACKS, COMMAND
from tests.support.paths import ROOT
from tests.support.toy_videos import make_video

pytestmark = pytest.mark.slow

SPEC = DecodeSpec("pyav", Resizing(32), 32.0, 4)
ENDLESS = ("hang", "spin")


def _kernel_confines() -> bool:
    try:
        return landlock_abi() >= 1 and supported() is None
    except OSError:
        return False


needs_kernel = pytest.mark.skipif(
    not _kernel_confines() or platform.machine() != "x86_64",
    reason="needs Landlock, and the attacks name system calls of x86_64",
)


class Home:
    """A secret beside files whose names choose the attacks, and somebody who listens."""

    def __init__(self, root: Path) -> None:
        self.secret = root / "private/secret"
        self.secret.parent.mkdir()
        self.secret.write_text("secret")
        self.secret.chmod(0o600)
        self.files = root / "media"
        self.files.mkdir()
        self.file("fork")
        self.server = socket.create_server(("127.0.0.1", 0))
        self.unix = socket.socket(socket.AF_UNIX)
        self.unix.bind(str(self.secret.with_suffix(".socket")))
        self.unix.listen()
        self.environment = {
            "HOSTILE_SECRET": str(self.secret),
            "HOSTILE_PORT": str(self.server.getsockname()[1]),
            "HOSTILE_INDEXER": str(os.getpid()),
        }

    def file(self, name: str) -> Path:
        path = self.files / f"{name}.mp4"
        path.write_bytes(b"a video, as far as anybody knows")
        return path

    def listing(self) -> list[tuple[str, bytes | None, int]]:
        return [
            (str(path), path.read_bytes() if path.is_file() else None, path.stat().st_mode)
            for folder in (self.secret.parent, self.files)
            for path in sorted(folder.iterdir())
        ]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    home = Home(tmp_path_factory.mktemp("hostile"))
    with home.server, home.unix:
        yield home


def hostile(
    home: Home, sandbox: SandboxMode, timeout_seconds: float = 300.0, file_seconds: float | None = None
) -> ProcessDecoder:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in home.environment.items():
            patch.setenv(name, value)
        patch.setattr(worker_process, "_WORKER", COMMAND)
        limits = Bounds(timeout_seconds, file_seconds, sandbox, memory_bytes=1 << 30)
        return ProcessDecoder(limits, threading.Event())


@pytest.fixture(scope="module")
def confined(home: Home) -> Iterator[ProcessDecoder]:
    decoder = hostile(home, "required")
    yield decoder
    decoder.close()


def attack(decoder: ProcessDecoder, home: Home, name: str) -> str:
    """What comes of an attack: blocked, done, or the way in which the process died."""
    (part,) = decoder.read(SPEC.job(home.file(name)))
    assert isinstance(part, FileVerdict | Died)
    return part.reason or ""


@needs_kernel
@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in ENDLESS])
def test_an_attack_reaches_nothing(confined: ProcessDecoder, home: Home, name: str) -> None:
    home.file(name)
    before = home.listing()
    result = attack(confined, home, name)
    if name == "use the numbers of 32 bits":
        assert result.startswith("SIGSYS")
    else:
        assert result.startswith("blocked: "), result
    assert home.listing() == before
    # The decoding process goes on.
    assert attack(confined, home, "fork") == "blocked: PermissionError"


@needs_kernel
def test_the_same_attacks_succeed_without_the_sandbox(home: Home) -> None:
    decoder = hostile(home, "off")
    try:
        for name in (
            "read another file",
            "read a folder",
            "create a file",
            "append to its own file",
            "make a folder",
            "connect",
            "connect to a Unix socket",
            "listen",
            "make a pair of sockets",
            "run a program as a child",
            "fork",
            "signal the indexer",
            "write memory as a file",
        ):
            assert attack(decoder, home, name).startswith("done: "), name
    finally:
        decoder.close()
        (home.secret.parent / "new").unlink()
        (home.secret.parent / "folder").rmdir()


@needs_kernel
def test_nobody_heard_of_the_attacks(home: Home, confined: ProcessDecoder) -> None:
    assert attack(confined, home, "connect").startswith("blocked")
    for server in (home.server, home.unix):
        server.setblocking(False)
        # The attacks without a sandbox have connected: only those.
        while True:
            try:
                server.accept()[0].close()
            except BlockingIOError:
                break
    for name in ("connect", "connect to a Unix socket", "send a datagram", "look up a name"):
        assert attack(confined, home, name).startswith("blocked"), name
    for server in (home.server, home.unix):
        with pytest.raises(BlockingIOError):
            server.accept()


@needs_kernel
@pytest.mark.parametrize("name", ENDLESS)
def test_one_that_goes_on_for_ever_is_ended(home: Home, name: str) -> None:
    decoder = hostile(home, "auto", timeout_seconds=0.5)
    try:
        assert attack(decoder, home, name) == "no progress for 0.5 seconds (--timeout)"
        assert attack(decoder, home, "fork") == "blocked: PermissionError"
    finally:
        decoder.close()


@needs_kernel
def test_cpu_time_is_limited_by_the_kernel_too(home: Home) -> None:
    decoder = hostile(home, "auto", timeout_seconds=60.0, file_seconds=0.01)
    decoder._worker._stopping = lambda: False
    try:
        # One second of CPU time, while the indexer waits longer.
        process = decoder._worker.start(SPEC.job(home.file("spin")), 1)
        with pytest.raises(EOFError):
            process.receive(30.0)
        process.close()
        assert decoder._worker.why_file_ended()[0] == "SIGXCPU"
    finally:
        decoder.close()


def test_a_confined_decoder_reads_what_one_that_is_not_reads(tmp_path: Path) -> None:
    clip = make_video(tmp_path / "a.mkv", parts=[("red", 40.0), ("blue", 2.0)], fps=2, title="Two parts")
    results = []
    for sandbox in ("auto", "off"):
        decoder = ProcessDecoder(Bounds(sandbox=sandbox), threading.Event())
        results.append([repr(part) for part in decoder.read(SPEC.job(clip))])
        decoder.close()
    assert results[0] == results[1]
    assert len(results[0]) == 3


@needs_kernel
def test_what_is_in_force_is_told(home: Home) -> None:
    decoder = ProcessDecoder(Bounds(sandbox="required"), threading.Event())
    decoder.close()
    assert decoder.confinement.startswith("decoders are confined: ")
    assert "Landlock for one file, seccomp filter" in decoder.confinement
    assert "\n" not in decoder.confinement


def test_required_refuses_to_go_without(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = Confinement((Part("files", "Landlock", "Function not implemented"),))
    assert [part.name for part in lacking.lacks()] == ["files"]
    assert [part.name for part in Confinement().lacks()] == list(NEEDED)
    # A process on a kernel without Landlock.
    code = (
        "import model.runtime.sandbox.landlock as l, errno\n"
        "def missing(*_): raise OSError(errno.ENOSYS, 'Function not implemented')\n"
        "l.system_call = missing\n"
        "from indexer.engines.worker import run_worker; run_worker()"
    )
    monkeypatch.setattr(worker_process, "_WORKER", code)
    with pytest.raises(ReelfindError, match=r"cannot be confined \(files: Function not implemented\)"):
        ProcessDecoder(Bounds(sandbox="required"), threading.Event())
    decoder = ProcessDecoder(Bounds(sandbox="auto"), threading.Event())
    decoder.close()
    assert decoder.confinement.endswith("missing: no files (Function not implemented)")


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_decides_as_its_table_says(machine: str) -> None:
    """An interpreter of classic BPF runs the program for both architectures."""
    program = build_filter(machine, process=77)
    arch = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}[machine]
    names = ("read", "openat", "clone", "kill", "socket", "execve", "ioctl")
    column = {"x86_64": (0, 257, 56, 62, 41, 59, 16), "aarch64": (63, 56, 220, 129, 198, 221, 29)}[machine]
    numbers = dict(zip(names, column, strict=True))

    def run(number: int, *arguments: int, on: int = arch) -> int:
        words = {0: number, 4: on}
        for i, value in enumerate((*arguments, 0, 0, 0, 0, 0, 0)[:6]):
            words[16 + 8 * i], words[20 + 8 * i] = value & 0xFFFFFFFF, value >> 32
        at, register = 0, 0
        while True:
            code, yes, no, operand = program[at]
            at += 1
            match code:
                case 0x20:
                    register = words[operand]
                case 0x54:
                    register &= operand
                case 0x15:
                    at += yes if register == operand else no
                case 0x06:
                    return operand
                case _:
                    raise AssertionError(code)

    allow, error = 0x7FFF0000, 0x00050000
    assert run(numbers["read"]) == allow
    assert run(numbers["read"], on=0x40000003) == 0x80000000
    assert run(numbers["socket"]) == run(numbers["execve"]) == run(9999) == error | 38
    assert run(numbers["openat"], 0, 0, os.O_RDONLY | os.O_CLOEXEC) == allow
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC, os.O_APPEND, 0o20000000, os.O_PATH):
        assert run(numbers["openat"], 0, 0, flags) == error | 1
    thread = 0x3D0F00
    assert run(numbers["clone"], thread) == allow
    assert run(numbers["clone"], thread | 0x10000000) == run(numbers["clone"], 17) == error | 1
    assert run(numbers["kill"], 77, 9) == allow
    for process in (78, 0, -1 & (1 << 64) - 1):
        assert run(numbers["kill"], process, 9) == error | 1
    assert run(numbers["ioctl"]) == error | 25
    assert len(program) < 4096


#: Becomes a user without rights, where it has some, and confines itself. stdout is a pipe.
_UNPRIVILEGED = """
import os, sys
from pathlib import Path
from indexer.decode import DecodeSpec, decode_file
from indexer.engines.preloading import load_all
from model.runtime.sandbox.confinement import Confinement, Limits, confine_for_file, confine_for_run
from model.runtime.preprocessing import Resizing
path = sys.argv[1]
load_all()
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
before = os.stat("/proc/self/ns/net").st_ino
network = confine_for_run()
moved = os.stat("/proc/self/ns/net").st_ino != before
print(network.missing is None, moved)
found = Confinement(confine_for_file(os.fsencode(path), Limits(8 << 30, 60)))
print([part.name for part in found.lacks()])
print(list(decode_file(DecodeSpec("pyav", Resizing(32), 32.0, 4).job(Path(path))))[-1].verdict)
try:
    open(__import__("av").__file__)
except PermissionError:
    print("confined")
"""


@needs_kernel
def test_a_user_without_rights_is_confined_too() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    # Others may not look into the folders of pytest.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        clip = make_video(Path(folder) / "a.mp4", parts=[("red", 1.0)])
        command = [sys.executable, "-P", "-c", _UNPRIVILEGED, str(clip)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    network, lacking, verdict, confined = done.stdout.splitlines()
    # A system may forbid namespaces of users; then nothing has changed.
    assert network in ("True True", "False False")
    assert (lacking, verdict, confined) == ("[]", "ok", "confined")
