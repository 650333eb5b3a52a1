"""`reelfind search --server URL` finds what `reelfind search --library` finds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.support.command_line import check_error, invoke
from tests.support.keys import WITH_KEYS, make_key
from tests.support.server import Server, running_server
from tests.support.toy_bundle import COLOURS
from tests.support.toy_library import ToyLibrary, make_library

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    both = [("red", 8.0), ("white", 6.0), ("blue", 8.0)]
    films = {"red.mp4": [("red", 2.0)], "shelf/blue.mp4": [("blue", 2.0)], "both.mp4": both}
    return make_library(tmp_path_factory.mktemp("films"), films, moments="edges")


@pytest.fixture(scope="module")
def server(films: ToyLibrary) -> Iterator[Server]:
    with running_server(*films.options) as server:
        yield server


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("picture") / "blue.png"
    Image.new("RGB", (60, 40), COLOURS["blue"]).save(path)
    return str(path)


def test_the_same_is_found(films: ToyLibrary, server: Server, picture: str) -> None:
    frame = server.search("red")[0]["frames"][0]["frame_id"]
    shelf = str(films.media / "shelf")
    for arguments in (
        ["red", "--explain"],
        ["red", "--not", "blue", "--no-rerank", "--top-k", "2", "--group-by", "video"],
        ["red", "--then", "blue", "--explain"],
        ["--image", picture, "--sort", "-path"],
        ["red", "--image", picture, "--like", frame],
        ["--like", frame, "--min-similarity", "0.1"],
        ["red", "--folder", shelf, "--max-duration", "60", "--min-duration", "1"],
        ["red", "--filter", '{"op": "equals", "field": "codec", "value": "h264"}', "--num-candidates", "1"],
    ):
        here = invoke("search", *arguments, *films.options)
        there = invoke("search", *arguments, "--server", server.url)
        assert there.stdout == here.stdout != "", there.output
        assert there.stderr == here.stderr
    here, there = (
        json.loads(invoke("search", "red", *options, "--json").stdout)
        for options in (films.options, ["--server", server.url])
    )
    assert {**there, "timings_ms": 0, "next_page_token": 0} == {**here, "timings_ms": 0, "next_page_token": 0}


def test_a_filter_may_be_as_deep_as_here(films: ToyLibrary, server: Server) -> None:
    condition = '{"op": "equals", "field": "codec", "value": "h264"}'
    for depth in range(2, 30):
        condition = f'{{"op": "not", "filter": {condition}}}'
        codes = {
            invoke("search", "red", "--filter", condition, *options).exit_code
            for options in (films.options, ["--server", server.url])
        }
        assert len(codes) == 1, depth
        if codes == {2}:
            break
    assert codes == {2}


def test_nothing_found_has_its_exit_code(films: ToyLibrary, server: Server) -> None:
    for options in (films.options, ["--server", server.url]):
        result = invoke("search", "red", "--min-similarity", "0.9999999", "--folder", "/elsewhere", *options)
        assert result.exit_code == 1
        assert "nothing found" in result.stderr


def test_a_key_is_taken_from_the_environment(films: ToyLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_server(*films.options, *WITH_KEYS) as server:
        arguments = ("search", "red", "--top-k", "1", "--server", server.url)
        check_error(invoke(*arguments), 2, "does not know who asks.*Set REELFIND_KEY")
        monkeypatch.setenv("REELFIND_KEY", make_key(films, "search"))
        assert "red.mp4" in invoke(*arguments).stdout


def test_errors_name_the_remedy(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = ["--server", server.url]
    check_error(invoke("search", "red", *at, "--library", tmp_path), 2, "--server goes without --library")
    check_error(invoke("search", "red", *at, "--top-k", "0"), 2, "top_k")
    check_error(invoke("search", "red", *at, "--min-probability", "nan"), 2, "not JSON compliant")
    check_error(invoke("search", "red", "--server", "localhost:8000"), 2, "give one such as http://127")
    check_error(invoke("search", "red", "--server", "http://127.0.0.1:1"), 3, "cannot be reached")
    monkeypatch.setenv("REELFIND_KEY", "two words")
    check_error(invoke("search", "red", *at), 2, "REELFIND_KEY")
