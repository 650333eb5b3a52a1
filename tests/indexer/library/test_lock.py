"""The lock of a library, and whom it names."""

import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from indexer.library.errors import BusyError
from indexer.library.lock import LOCK_FILE, library_writer, lock_library


@contextmanager
def held(folder: Path, text: bytes) -> Iterator[None]:
    """The lock, held by somebody who has written `text` into its file."""
    with (folder / LOCK_FILE).open("wb", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(text)
        yield


def refusal(folder: Path) -> str:
    with pytest.raises(BusyError) as error, lock_library(folder):
        pass
    return str(error.value)


def finished_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_process_that_runs_is_named_and_one_that_has_ended_is_not(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from indexer.library.lock import lock_library\n"
        "with lock_library(Path(sys.argv[1])): print('locked', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        written = (tmp_path / LOCK_FILE).read_bytes()
        assert f"by process {other.pid}: wait" in refusal(tmp_path)
    finally:
        other.kill()
        other.communicate()
    # It was killed, so its number is still there; then somebody else takes the lock.
    assert (tmp_path / LOCK_FILE).read_bytes() == written
    with held(tmp_path, written):
        assert "is being written by another process: wait" in refusal(tmp_path)


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"-1"])
def test_what_names_no_process_is_not_shown(tmp_path: Path, text: bytes) -> None:
    with held(tmp_path, text):
        assert "by another process" in refusal(tmp_path)


def test_a_process_elsewhere_is_told_by_its_computer(tmp_path: Path) -> None:
    with held(tmp_path, f"{finished_process()} nas pid:[1]\n".encode()):
        assert "on 'nas', another computer or container: wait" in refusal(tmp_path)


def test_who_has_finished_leaves_no_name(tmp_path: Path) -> None:
    with lock_library(tmp_path):
        assert (tmp_path / LOCK_FILE).read_text().split()[0] == str(os.getpid())
    assert (tmp_path / LOCK_FILE).read_text() == ""


def test_one_that_is_just_ending_is_waited_for(tmp_path: Path) -> None:
    file = (tmp_path / LOCK_FILE).open("wb")
    fcntl.flock(file, fcntl.LOCK_EX)
    timer = threading.Timer(0.2, file.close)
    timer.start()
    with lock_library(tmp_path):
        pass
    timer.join()


def test_who_asks_for_the_writer_is_told_and_is_in_nobodys_way(tmp_path: Path) -> None:
    assert library_writer(tmp_path) is None
    with lock_library(tmp_path):
        assert library_writer(tmp_path) == f"process {os.getpid()}"
    assert library_writer(tmp_path) is None
    with held(tmp_path, b""):
        assert library_writer(tmp_path) == "another process"
