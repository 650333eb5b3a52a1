"""Names of files with escape sequences, line breaks and marks of direction: no terminal gets them raw."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from model.runtime.messages import printable, printable_json
from tests.support.copies import distinct_copy
from tests.support.server import clean_environment, running_server
from tests.support.toy_library import ToyLibrary, make_library

TITLE = "\x1b]0;owned\x07"
COLOUR = "\x1b[31mEVIL"
REVERSED = "\u202eEVIL"
C1 = "\x9b2JEVIL"
LINE = "EVIL\nreelfind: all is well"
MARKUP = "[red]EVIL[link=x]"
NAMES = [f"{part}.mp4" for part in (TITLE, COLOUR, REVERSED, C1, LINE, MARKUP)]
RAW = [TITLE, COLOUR, REVERSED, C1, LINE]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    folder = tmp_path_factory.mktemp("hostile")
    toy = make_library(folder, {"red.mp4": [("red", 1.0)]})
    for name in NAMES:
        distinct_copy(toy.media / "red.mp4", toy.media / name)
        (toy.media / f"bad {name}").write_bytes(b"\0" * 100)
    return toy


def on_a_terminal(*arguments: str | Path, columns: int = 300) -> str:
    """What a terminal gets from a command."""
    master, slave = pty.openpty()
    environment = clean_environment() | {"TERM": "xterm-256color", "COLUMNS": str(columns)}
    command = [sys.executable, "-P", "-m", "service", *map(str, arguments)]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    output = b""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if select.select([master], [], [], 0.2)[0]:
            try:
                block = os.read(master, 65536)
            except OSError:  # the last writer has closed it
                break
            if not block:
                break
            output += block
        elif process.poll() is not None:
            break
    process.wait(10)
    os.close(master)
    return output.decode().replace("\r\n", "\n")


def check_harmless(output: str) -> None:
    for raw in RAW:
        assert raw not in output, repr(output)
    for character in "\x07\x9b\u202e":
        assert character not in output, repr(output)
    assert "\x1b]" not in output, repr(output)


@pytest.mark.slow
def test_indexing_and_searching_on_a_terminal(toy: ToyLibrary) -> None:
    output = on_a_terminal("index", toy.media, *toy.options, "--workers", "1", "--list-passed-over")
    check_harmless(output)
    for shown in (
        r"\x1b]0;owned\x07",
        r"\x1b[31mEVIL",
        r"\u202eEVIL",
        r"\x9b2JEVIL",
        r"EVIL\x0areelfind",
        MARKUP,
    ):
        assert shown in output, repr(output)
    for arguments in (("search", "red"), ("search", "red", "--explain"), ("search", "red", "--json")):
        output = on_a_terminal(*arguments, *toy.options)
        check_harmless(output)
        assert MARKUP in output, repr(output)
    answer = json.loads(output)
    assert {Path(hit["path"]).name for hit in answer["hits"]} == {"red.mp4", *NAMES}
    output = on_a_terminal("index", toy.media, *toy.options, "--json", "--workers", "0", "--retry-failed")
    check_harmless(output)


@pytest.mark.slow
def test_errors_that_name_what_was_typed(tmp_path: Path) -> None:
    part = "".join(RAW)
    missing = tmp_path / part
    for arguments in (
        ("search", "red", "--library", missing),
        ("index", missing, "--library", tmp_path / "new"),
        ("bundle", "info", missing),
        ("search", "red", f"--{part}"),
        (part,),
    ):
        check_harmless(on_a_terminal(*arguments))


@pytest.mark.slow
def test_reports_of_a_library_whose_own_name_is_hostile(toy: ToyLibrary, tmp_path: Path) -> None:
    library = tmp_path / f"{TITLE}{COLOUR}"
    shutil.copytree(toy.library, library)
    check_harmless(on_a_terminal("library", "info", "--library", library))
    check_harmless(on_a_terminal("library", "verify", "--library", library, "--json"))


def test_the_log_of_the_service(toy: ToyLibrary, tmp_path: Path) -> None:
    library = tmp_path / LINE.replace("/", "") / COLOUR
    library.parent.mkdir()
    library.mkdir()
    with running_server("--library", str(library), "--bundle", str(toy.bundle), ready=False) as server:
        server.client.get("/%1b%5d0;owned%07%0aINFO")
        server.client.get("/", headers={"Host": "evil.example"})
        log = server.log()
    check_harmless(log)
    assert r"EVIL\x0areelfind: all is well/\x1b[31mEVIL is not a library" in log


def test_answers_name_them_as_json_and_as_headers(toy: ToyLibrary) -> None:
    toy.index()
    with running_server(*toy.options) as server:
        videos = server.client.get("/v1/videos").json()["videos"]
        names = {Path(video["path"]).name: video["video_id"] for video in videos}
        assert set(NAMES) <= set(names)
        for name in NAMES:
            response = server.client.head(f"/v1/videos/{names[name]}/media")
            assert response.status_code == 200
            disposition = response.headers["content-disposition"]
            assert disposition.isascii()
            assert disposition.isprintable()


def test_what_people_read_stays_as_it_is() -> None:
    for text in ("ein Film, früher.mkv", "映画 – 2026", "👩‍👩‍👧 ❤️", "می‌خواهم", "a\u202fb c"):
        assert printable(text) == text
    assert printable("a\tb\x7f\u2028\ud800\U000e0041") == r"a\x09b\x7f\u2028\ud800\U000e0041"


def test_json_means_the_same() -> None:
    value = {"name": "\x1b\x7f\x9b\u202e\u2028\U000e0041é\n", "list": [1]}
    text = json.dumps(value, ensure_ascii=False, indent=2)
    harmless = printable_json(text)
    assert json.loads(harmless) == value
    assert "é" in harmless
    assert harmless.replace("\n", "").isprintable()
