"""Videos of a library, named as people write names."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import QueryError
from service.search.searcher import Searcher
from service.search.video_finder import VideoFinder
from tests.support.command_line import check_error, invoke
from tests.support.toy_library import ToyLibrary, make_library

NFC, NFD = "caf\u00e9.mp4", "cafe\u0301.mp4"
FILMS = {
    NFD: [("red", 1.0)],
    "both/\u00e9.mp4": [("green", 1.0)],
    "both/e\u0301.mp4": [("blue", 1.0)],
    "Garden.MP4": [("yellow", 1.0)],
    "Screen at 9.41\u202fAM.mp4": [("cyan", 1.0)],
    "e\u0301te\u0301/one.mp4": [("white", 1.0)],
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(tmp_path_factory.mktemp("names"), FILMS)


def found(searcher: Searcher, name: str) -> str:
    return searcher.snapshot.videos(VideoFinder(searcher.snapshot).row_of(name), 1)[0].path


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (NFC, NFD),
        (NFD, NFD),
        ("\u00e9.mp4", "both/\u00e9.mp4"),
        ("e\u0301.mp4", "both/e\u0301.mp4"),
        ("Screen at 9.41 AM.mp4", "Screen at 9.41\u202fAM.mp4"),
        ("\u00e9t\u00e9/one.mp4", "e\u0301te\u0301/one.mp4"),
    ],
)
def test_a_name_in_another_form_is_found_and_an_exact_one_comes_first(
    searcher: Searcher, name: str, path: str
) -> None:
    assert found(searcher, name).endswith("/" + path)


def test_another_case_is_the_same_name_where_the_file_system_says_so(
    searcher: Searcher, toy: ToyLibrary
) -> None:
    folded = toy.media / "garden.mp4"
    if not folded.exists():  # this disk tells the cases apart
        with pytest.raises(QueryError, match=r'no video "garden.mp4", but ".*/Garden.MP4"'):
            found(searcher, "garden.mp4")
        folded.hardlink_to(toy.media / "Garden.MP4")
    assert Path(found(searcher, "garden.mp4")).name == "Garden.MP4"


def test_a_library_or_folder_that_looks_like_another_is_named(toy: ToyLibrary, tmp_path: Path) -> None:
    (tmp_path / "Bibliothe\u0300que").symlink_to(toy.library)
    typed = tmp_path / "Biblioth\u00e8que"
    check_error(
        invoke("search", "red", "--library", typed, "--bundle", toy.bundle),
        2,
        r'\(there is ".*Bibliothe\u0300que"\)',
    )
    (tmp_path / "e\u0301te\u0301").mkdir()
    done = invoke("index", tmp_path / "\u00e9t\u00e9", "--library", tmp_path / "new", "--bundle", toy.bundle)
    assert done.exit_code == 2
    assert "(there is " in done.stderr
