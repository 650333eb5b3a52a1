"""`reelfind search` by a picture, a stored frame, what should not be there, and what comes next."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from tests.support.command_line import check_error, invoke
from tests.support.toy_bundle import COLOURS
from tests.support.toy_library import ToyLibrary, make_library

FILMS = {
    "red.mp4": [("red", 2.0)],
    "blue.mp4": [("blue", 2.0)],
    "both.mp4": [("red", 8.0), ("white", 6.0), ("blue", 8.0)],
}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(tmp_path_factory.mktemp("films"), FILMS, matcher=False, moments="edges")


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "a photo.jpg"
    Image.new("RGB", (60, 40), COLOURS["blue"]).save(path, quality=95)
    return path


def found(*arguments: str) -> list[str]:
    body = json.loads(invoke("search", *arguments, "--json").stdout)
    return [Path(hit["path"]).name for hit in body["hits"]]


def test_a_picture_alone_or_with_a_text(films: ToyLibrary, picture: Path) -> None:
    assert found("--image", str(picture), *films.options)[0] == "blue.mp4"
    assert found("red", "--image", str(picture), *films.options)[0] == "both.mp4"


def test_what_is_like_a_stored_frame(films: ToyLibrary) -> None:
    hits = json.loads(invoke("search", "blue", *films.options, "--json").stdout)["hits"]
    blue = next(hit["frames"][0]["frame_id"] for hit in hits if hit["path"].endswith("blue.mp4"))
    other = next(hit["frames"][0]["frame_id"] for hit in hits if hit["path"].endswith("both.mp4"))
    assert found("--like", blue, *films.options)[0] == "both.mp4"
    assert "blue.mp4" not in found("--like", blue, *films.options)
    # Of several, none is left out; with a text they correct it.
    assert set(found("--like", blue, "--like", other, *films.options)) == set(FILMS)
    assert found("white", "--like", blue, *films.options)[0] in ("both.mp4", "blue.mp4")


def test_what_should_not_be_there(films: ToyLibrary) -> None:
    plain = json.loads(invoke("search", "red", "--no-rerank", *films.options, "--json").stdout)["hits"]
    without = invoke("search", "red", "--not", "blue", "--no-rerank", *films.options, "--json")
    score = {Path(hit["path"]).name: hit["similarity"] for hit in json.loads(without.stdout)["hits"]}
    assert score["blue.mp4"] < min(hit["similarity"] for hit in plain)


def test_what_comes_next(films: ToyLibrary) -> None:
    result = invoke("search", "red", "--then", "blue", "--explain", *films.options)
    lines = result.stdout.splitlines()
    assert lines[0].split("\t")[4].endswith("both.mp4")
    steps = [line for line in lines if re.fullmatch(r"  0:\d\d\.\d to 0:\d\d\.\d: \w+ \(-?\d\.\d+\)", line)]
    assert [step.split(": ")[1].split()[0] for step in steps[:2]] == ["red", "blue"]
    assert any("similarity" in line for line in lines)
    quiet = invoke("search", "red", "--then", "blue", *films.options)
    assert all("\t" in line for line in quiet.stdout.splitlines())


def test_what_does_not_come_is_not_found(tmp_path: Path) -> None:
    alone = make_library(tmp_path, {"red.mp4": [("red", 1.0)]}, matcher=False)
    result = invoke("search", "red", "--then", "blue", *alone.options)
    assert result.exit_code == 1
    assert "no video shows these one after the other" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "nothing to search for: give a text, --image FILE or --like FRAME_ID"),
        (("--not", "red"), "--not goes with a text"),
        (("--then", "red"), "--then comes after a text"),
        (("red", "--then", "blue", "--like", "x"), "--then goes with texts alone"),
        (("red", *("--then", "blue") * 5), "at most 5 texts"),
        (("red", "--not", " "), "The query is empty"),
        (("--image", "nowhere.jpg"), "no picture at nowhere.jpg"),
        (("--image", "/"), "/ cannot be read"),
        (("--like", "x"), 'No stored frame has the id "x"'),
        (("--image", __file__), "no JPEG, PNG"),
        (("red", "--not", "blue", "--min-probability", "0.5"), "no probabilities"),
    ],
)
def test_options_that_do_not_go_together(films: ToyLibrary, arguments: tuple[str, ...], said: str) -> None:
    check_error(invoke("search", *arguments, *films.options), 2, said)


def test_a_file_that_is_too_large_is_not_read(
    films: ToyLibrary, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REELFIND_MAX_IMAGE_BYTES", "1024")
    large = picture.with_name("large.bmp")
    Image.new("RGB", (60, 40)).save(large)
    said = "has more than 1,024 bytes: scale it down, or raise REELFIND_MAX_IMAGE_BYTES"
    check_error(invoke("search", "--image", str(large), *films.options), 2, said)
