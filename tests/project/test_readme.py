"""The README's commands, as they are written, on a folder of videos with the shipped bundle."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.server import clean_environment, running_server
from tests.support.toy_videos import make_video

README = (ROOT / "README.md").read_text(encoding="utf-8")
PACKAGES = f"{ROOT}{os.pathsep}{ROOT / 'service' / 'public'}"
BLOCKS = re.findall(r"^```bash\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
PROGRAM, SHELL = (
    "".join(re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL))
    for language in ("python", "sh")
)
SERVE = "reelfind serve --library library --host 127.0.0.1 --port 8000\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a folder of videos, as the README assumes one."""
    make_video(tmp_path / "Videos" / "beach.mp4", parts=[("yellow", 1.0), ("blue", 1.0)])
    make_video(tmp_path / "Videos" / "holidays 2026" / "lawn.mp4", parts=[("green", 2.0)])
    return tmp_path


def _run(script: str, home: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        ["bash", "-euc", script],
        cwd=home,
        # The package `reelfind` of this repository, wherever another one is installed from.
        env=clean_environment() | {"HOME": str(home), "PATH": path, "PYTHONPATH": PACKAGES},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.returncode == 0, f"{script}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.mark.slow
def test_commands_run_in_the_order_they_are_read(home: Path) -> None:
    first, second, request, explained, filtered, paged, evaluation = BLOCKS
    before, serve, after = first.partition(SERVE)
    assert serve
    assert not after, "a command after `serve` would never run"
    _run(before, home)
    # A server does not return, so it runs beside the other commands; port 8000 may be taken here.
    with running_server("--library", str(home / "library")) as server:
        _run(second, home)
        answer = json.loads(_run(request.replace("http://127.0.0.1:8000", server.url), home))
        assert {Path(hit["path"]).name for hit in answer["hits"]} == {"beach.mp4", "lawn.mp4"}
        words = _run(explained.replace("http://127.0.0.1:8000", server.url), home)
        assert json.loads(words.splitlines()[-1])["reranked"] is True
        among = _run(filtered.replace("http://127.0.0.1:8000", server.url), home)
        assert {Path(hit["path"]).name for hit in json.loads(among.splitlines()[-1])["hits"]} == {
            *("beach.mp4", "lawn.mp4")
        }
        page = json.loads(_run(paged.replace("http://127.0.0.1:8000", server.url), home))
        assert page["num_videos"] == 2
        assert all("frames" not in hit and hit["similarity"] >= 0.2 for hit in page["hits"])
        assert "R@1" in _run(evaluation, home)
        told = _run(SHELL.replace("http://127.0.0.1:8000", server.url), home).splitlines()
        assert json.loads(told[-1])["total"] == 2
        assert any("beach.mp4" in line for line in told[:-1])
        (home / "program.py").write_text(PROGRAM.replace("http://127.0.0.1:8000", server.url))
        assert _run("python program.py", home).count("beach.mp4") == 2
        assert b"ftyp" in (home / "clip.mp4").read_bytes()[:16]


def test_the_first_commands_work_with_a_python_that_its_system_manages(tmp_path: Path) -> None:
    """Debian's Python refuses `pip install` (PEP 668): everything goes into a virtual environment."""
    system = Path("/usr/bin/python3")
    if not list(Path("/usr/lib").glob("python3*/EXTERNALLY-MANAGED")):
        pytest.skip("no Python of a system that manages it")
    if subprocess.run([system, "-c", "import ensurepip"], capture_output=True, check=False).returncode:
        pytest.skip("python3-venv is not installed")
    (block,) = re.findall(r"^```\n(python3 -m venv .*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    assert "pip install --constraint constraints.txt '.[cpu]'" in block
    # Not the packages, which are large: one that is there already, as pip refuses before it looks.
    script = block.replace("--constraint constraints.txt '.[cpu]'", "--no-index pip")

    def run(commands: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
        return subprocess.run(
            ["bash", "-euc", commands], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )

    done = run(script)
    assert done.returncode == 0, done.stderr
    assert "already satisfied: pip in ./.venv/reelfind" in done.stdout
    if subprocess.run([system, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0:
        assert "externally-managed-environment" in run("python3 -m pip install --no-index pip").stderr


def test_make_runs_the_commands_that_the_readme_names() -> None:
    for target, command in (("demo", "reelfind demo"), ("test", "-m pytest")):
        assert re.search(rf"^make {target}\b", README, flags=re.MULTILINE)
        planned = subprocess.run(
            ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        assert command in planned


def test_files_that_the_readme_links_are_there() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / link).exists(), link
