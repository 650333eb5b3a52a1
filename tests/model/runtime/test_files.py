"""Replacing files whole: what stands at the place, whatever happens while it is written."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from model.runtime.files import replace_text, replacing, sha256_of, sha256_steps


def test_a_file_is_made_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "name.txt"
    replace_text(path, "one")
    assert path.read_text(encoding="utf-8") == "one"
    replace_text(path, "zwei ü")
    assert path.read_text(encoding="utf-8") == "zwei ü"
    assert [entry.name for entry in tmp_path.iterdir()] == ["name.txt"]


def test_an_error_while_writing_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"old")

    def fail_halfway() -> None:
        with replacing(path) as temporary:
            assert temporary.suffix == ".pt"
            assert temporary.name.startswith(".")
            temporary.write_bytes(b"half")
            raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        fail_halfway()
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.pt"]


@pytest.mark.parametrize("point", ["write", "fsync", "rename", "renamed"])
def test_a_kill_at_any_point_leaves_a_whole_file(tmp_path: Path, point: str) -> None:
    path = tmp_path / "CURRENT"
    path.write_text("old", encoding="utf-8")
    code = "import sys; from pathlib import Path; from model.runtime.files import replace_text\n"
    code += "replace_text(Path(sys.argv[1]), 'new', step='current')"
    environment = {
        "REELFIND_FAULT": f"kill current.{point} 1",
        "PYTHONPATH": ":".join(filter(None, sys.path)),
    }
    ended = subprocess.run([sys.executable, "-c", code, str(path)], env=environment, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert path.read_text(encoding="utf-8") == ("new" if point == "renamed" else "old")
    replace_text(path, "later")
    assert [entry.name for entry in tmp_path.iterdir()] == ["CURRENT"]


def test_many_threads_may_replace_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "frames.npy"

    def write(number: int) -> None:
        for _ in range(20):
            replace_text(path, str(number) * 10_000, shared=True)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if path.exists():
            text = path.read_text(encoding="utf-8")
            assert len(text) == 10_000
            assert len(set(text)) == 1
    for thread in threads:
        thread.join()
    assert [entry.name for entry in tmp_path.iterdir()] == ["frames.npy"]


def test_a_checksum_in_steps_is_the_checksum(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(bytes(range(256)) * 40_000)
    steps, count = sha256_steps(path, step_bytes=1 << 22), 0
    while True:
        try:
            next(steps)
        except StopIteration as done:
            digest = done.value
            break
        count += 1
    assert count == 2
    assert digest == sha256_of(path) == hashlib.sha256(path.read_bytes()).hexdigest()
