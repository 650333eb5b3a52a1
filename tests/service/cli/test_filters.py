"""`reelfind search` among chosen videos."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support.command_line import check_error, invoke
from tests.support.toy_library import ToyLibrary, make_library


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("REELFIND_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    films = {"a/red.mp4": [("red", 2.0)], "a/blue.mp4": [("blue", 1.0)], "ab/green.mp4": [("green", 3.0)]}
    return make_library(tmp_path_factory.mktemp("cli_filters"), films)


def found(toy: ToyLibrary, *options: str) -> set[str]:
    result = invoke("search", "red", *toy.options, "--json", *options)
    assert result.exit_code == 0, result.output
    return {Path(hit["path"]).name for hit in json.loads(result.stdout)["hits"]}


def test_options_choose_videos_together(toy: ToyLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    short = '{"op": "range", "field": "duration_seconds", "lte": 2.5}'
    assert found(toy, "--filter", short) == {"red.mp4", "blue.mp4"}
    assert found(toy, "--folder", f"{toy.media}/a") == {"red.mp4", "blue.mp4"}
    assert found(toy, "--folder", f"{toy.media}/ab", "--folder", f"{toy.media}/a/") == {
        *("red.mp4", "blue.mp4", "green.mp4")
    }
    assert found(toy, "--min-duration", "1.5", "--max-duration", "2.5") == {"red.mp4"}
    assert found(toy, "--min-duration", "1.5", "--folder", str(toy.media)) == {"red.mp4", "green.mp4"}
    assert found(toy, "--filter", short, "--min-duration", "1.5") == {"red.mp4"}
    monkeypatch.chdir(toy.media)
    assert found(toy, "--folder", "ab") == {"green.mp4"}
    assert found(toy, "--folder", ".") == {"red.mp4", "blue.mp4", "green.mp4"}


def test_order_and_threshold(toy: ToyLibrary) -> None:
    def names(*options: str) -> list[str]:
        hits = json.loads(invoke("search", "red", *toy.options, "--json", *options).stdout)["hits"]
        return [Path(hit["path"]).name for hit in hits]

    assert names("--sort", "duration_seconds") == ["blue.mp4", "red.mp4", "green.mp4"]
    assert names("--sort=-path", "--group-by", "video") == ["green.mp4", "red.mp4", "blue.mp4"]
    assert names("--min-similarity", "0.9") == ["red.mp4"]
    result = invoke("search", "black", *toy.options, "--min-similarity", "0.999")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no moment reaches what --min-probability or --min-similarity asks for" in result.stderr
    result = invoke("search", "red", *toy.options, "--max-duration", "2.5")
    assert "the filter left 2 of 3 videos" in result.stderr


def test_nothing_fits(toy: ToyLibrary) -> None:
    result = invoke("search", "red", *toy.options, "--min-duration", "100")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "the library holds no video that can be searched and fits the filter" in result.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--filter", "codec = h264"], r"The filter is not JSON: .* Write one like \{\"op\": \"range\""),
        (["--filter", "[" * 100_000], "The filter is not JSON"),
        (["--sort", "size"], r'"size" is not an order\. Choose one of path'),
        (["--filter", "{}"], 'filter has no "op". Write one like'),
        (
            ["--filter", '{"op": "is_null", "field": "size"}'],
            '"size" is not a field to filter by. Choose one of',
        ),
        (["--filter", '{"op": "is_null"}'], '"filter.field" is missing. Send {"op"'),
        (
            ["--min-duration", "nan"],
            "duration_seconds is a number: compare it with a number such as 60, not NaN",
        ),
    ],
)
def test_options_that_cannot_be(toy: ToyLibrary, options: list[str], said: str) -> None:
    check_error(invoke("search", "red", *toy.options, *options), 2, said)
