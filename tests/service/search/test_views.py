"""How paths of the server look to whom."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.search.views import ALL_PATHS, WHOLE, PathNames, View, root_names

ROOTS = [Path("/srv/films"), Path("/mnt/films"), Path("/srv/films/new"), Path("/home/ann/Videos")]
EVERYBODY = PathNames(View(whole_paths=False), ROOTS)


def test_an_administrator_sees_paths_as_they_are() -> None:
    assert PathNames(WHOLE, ROOTS).shown("/srv/films/a.mp4") == ALL_PATHS.shown("/srv/films/a.mp4")
    assert ALL_PATHS.shown("/srv/films/a.mp4") == "/srv/films/a.mp4"


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/home/ann/Videos/2019/a.mp4", "Videos/2019/a.mp4"),
        ("/mnt/films/a.mp4", "films/a.mp4"),
        ("/srv/films/a.mp4", "films (2)/a.mp4"),
        ("/srv/films/new/a.mp4", "new/a.mp4"),
    ],
)
def test_others_see_them_from_the_innermost_media_folder_on(path: str, shown: str) -> None:
    assert EVERYBODY.shown(path) == shown


@pytest.mark.parametrize("path", ["/etc/a.mp4", "/srv/films2/a.mp4", "/home/ann/a.mp4", "a.mp4"])
def test_outside_of_all_media_folders_only_the_name_of_the_file_shows(path: str) -> None:
    assert EVERYBODY.shown(path) == "a.mp4"


def test_a_folder_hides_what_lies_above_and_beside_it() -> None:
    kids = PathNames(View(Path("/srv/films/kids"), whole_paths=False), ROOTS)
    assert kids.shown("/srv/films/kids/x/a.mp4") == "kids/x/a.mp4"
    assert kids.shown("/srv/films/a.mp4") == "a.mp4"
    # That there is another folder of the same name changes nothing.
    films = PathNames(View(Path("/srv/films"), whole_paths=False), ROOTS)
    assert films.shown("/srv/films/a.mp4") == "films/a.mp4"
    everything = PathNames(View(Path("/"), whole_paths=False), ROOTS)
    assert everything.shown("/srv/films/a.mp4") == "root/srv/films/a.mp4"


def test_no_two_media_folders_have_the_same_name() -> None:
    assert root_names(["/a/x", "/b/x", "/c/x (2)", "/d/x", "/", "/b/x"]) == {
        "/": "root",
        "/a/x": "x",
        "/b/x": "x (2)",
        "/c/x (2)": "x (2) (2)",
        "/d/x": "x (3)",
    }


@pytest.mark.parametrize("path", ["/mnt/films/a.mp4", "/srv/films/x", "/srv/films/new/a.mp4", "/mnt/films/"])
def test_what_is_shown_means_the_path_again(path: str) -> None:
    assert EVERYBODY.meant(EVERYBODY.shown(path)) == path


def test_the_name_of_a_media_folder_means_the_folder() -> None:
    assert EVERYBODY.meant("films (2)") == "/srv/films"
    for text in ("/etc/films", "film", "films (3)/a.mp4", ""):
        assert EVERYBODY.meant(text) == text
    kids = PathNames(View(Path("/srv/films/kids"), whole_paths=False), ROOTS)
    assert kids.meant("kids/a.mp4") == "/srv/films/kids/a.mp4"
    assert kids.meant("films/a.mp4") == "films/a.mp4"
