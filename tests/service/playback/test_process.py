"""What a process that a file has taken over can reach and say: nothing else, and nothing that is believed."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from model.runtime.sandbox.confinement import SandboxMode
from model.runtime.sandbox.landlock import landlock_abi
from model.runtime.sandbox.seccomp import supported
from service.errors import MediaUnreadableError, NoEncodersError
from service.playback import process
from service.playback.jobs import Bounds, DescribeJob, Job, StreamJob
from service.playback.process import MediaProcess
from tests.support.hostile_player import ATTACKS
from tests.support.processes import children
from tests.support.server import until
from tests.support.toy_videos import make_video

pytestmark = pytest.mark.slow
DESCRIBE = DescribeJob()
STREAM = StreamJob(0.0, 1.0, 720)


def _kernel_confines() -> bool:
    try:
        return landlock_abi() >= 1 and supported() is None
    except OSError:
        return False


needs_kernel = pytest.mark.skipif(
    not _kernel_confines() or platform.machine() != "x86_64", reason="needs Landlock and the filter"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a secret, and somebody who listens."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "secret").write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        told = {
            "secret": str(folder / "secret"),
            "folder": str(folder),
            "port": server.getsockname()[1],
            "service": os.getpid(),
        }
        (folder / "told.json").write_text(json.dumps(told))
        yield folder


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes are taken over by the file that they are given."""
    monkeypatch.setattr(process, "_MODULE", "tests.support.hostile_player")
    monkeypatch.setenv("REELFIND_BUNDLE", "secret")
    monkeypatch.setenv("MY_SECRET", "secret")


def ask(
    path: Path,
    what: Callable[[MediaProcess], Awaitable[object]],
    job: Job = DESCRIBE,
    *,
    sandbox: SandboxMode = "required",
    cpu_seconds: int = 60,
    silence_seconds: float = 30.0,
) -> object:
    """What comes of a job with a file; the process must have ended afterwards."""
    if not path.exists():
        path.write_bytes(b"a video, as far as anybody knows")

    async def run() -> object:
        with path.open("rb") as file:
            bounds = Bounds(sandbox, 1 << 30, cpu_seconds, 0, 1)
            started = await MediaProcess.start(job, file.fileno(), bounds, silence_seconds=silence_seconds)
        try:
            return await what(started)
        finally:
            started.close()

    before = set(children(os.getpid()))
    result: object
    try:
        result = asyncio.run(run())
    except (MediaUnreadableError, NoEncodersError) as error:
        result = f"{type(error).__name__}: {error}"
    until(lambda: set(children(os.getpid())) <= before)
    return result


async def whole(started: MediaProcess) -> bytes:
    """The stream."""
    await started.media_type()
    return b"".join([chunk async for chunk in started.chunks()])


@needs_kernel
@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.usefixtures("hostile")
def test_an_attack_reaches_nothing(name: str, folder: Path) -> None:
    result = ask(folder / f"{name}.mp4", MediaProcess.description)
    assert str(result).startswith("MediaUnreadableError: Blocked: "), result
    assert not (folder / "new").exists()


@needs_kernel
@pytest.mark.parametrize("name", ["read another file", "connect", "run a program"])
@pytest.mark.usefixtures("hostile")
def test_the_same_attacks_succeed_without_the_sandbox(name: str, folder: Path) -> None:
    result = ask(folder / f"{name}.mp4", MediaProcess.description, sandbox="off")
    assert str(result).startswith("MediaUnreadableError: Done: "), result


@pytest.mark.usefixtures("hostile")
def test_limits_hold_without_the_sandbox_too(folder: Path) -> None:
    result = ask(folder / "take memory.mp4", MediaProcess.description, sandbox="off")
    assert result == "MediaUnreadableError: Blocked: MemoryError."
    for sandbox in ("off", "auto"):
        result = ask(folder / "spin.mp4", MediaProcess.description, sandbox=sandbox, cpu_seconds=1)
        assert result == "MediaUnreadableError: Decoding it takes more CPU time than it may."


@pytest.mark.usefixtures("hostile")
def test_the_environment_holds_no_secrets(folder: Path) -> None:
    assert ask(folder / "look around.mp4", MediaProcess.description) == "MediaUnreadableError: Done: ."


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("crash", "Its decoder crashed (SIGSEGV)."),
        ("leave", "Its decoder ended early (exit code 3)."),
        ("hang", "Nothing came of decoding it for 1 s."),
        ("no JSON", "Its decoder sent nonsense."),
        ("no object", "Its decoder sent nonsense."),
        ("another message", "Its decoder sent nonsense."),
        ("an endless line", "Its decoder sent nonsense."),
        ("fields that are no text", "Its decoder sent nonsense."),
        ("an unknown failure", "{}."),
        ("a reason that moves the cursor", "A\\x1b[2Jb\\x0ac."),
    ],
)
@pytest.mark.usefixtures("hostile")
def test_what_it_says_is_not_believed(name: str, said: str, folder: Path) -> None:
    seconds = 1.0 if name == "hang" else 30.0
    result = ask(folder / f"{name}.mp4", MediaProcess.description, silence_seconds=seconds)
    assert result == f"MediaUnreadableError: {said}"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("another type", "Its decoder sent nonsense."),
        ("a type with a header", "Its decoder sent nonsense."),
        ("a stream that breaks off", "Its decoder crashed (SIGKILL)."),
        ("a stream of another length", "Its decoder sent nonsense."),
        ("a stream that stops", "Nothing came of decoding it for 1 s."),
    ],
)
@pytest.mark.usefixtures("hostile")
def test_a_stream_is_checked(name: str, said: str, folder: Path) -> None:
    seconds = 1.0 if name == "a stream that stops" else 30.0
    result = ask(folder / f"{name}.mp4", whole, STREAM, silence_seconds=seconds)
    assert result == f"MediaUnreadableError: {said}"


def test_a_confined_process_makes_what_one_that_is_not_makes(tmp_path: Path) -> None:
    path = make_video(tmp_path / "film.avi", parts=[("red", 1.0), ("blue", 1.0)], codec="mpeg4")
    made = [ask(path, whole, STREAM, sandbox=sandbox) for sandbox in ("auto", "off")]
    assert made[0] == made[1]
    assert isinstance(made[0], bytes)
    assert made[0][4:8] == b"ftyp"
