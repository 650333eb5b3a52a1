"""Whether a file lies in the folder of a key."""

import os
from pathlib import Path

import pytest

from service.rights.folders import Folder

FOLDER = Folder(Path("/media/kids"))


@pytest.mark.parametrize("inside", ["/media/kids/a.mp4", "/media/kids/x/y/a.mp4", "/media/kids//a.mp4"])
def test_files_in_the_folder_and_below_it_are_held(inside: str) -> None:
    assert FOLDER.holds(Path(inside))


@pytest.mark.parametrize(
    "outside",
    [
        "/media/kids",
        "/media/kids2/a.mp4",
        "/media/kid/a.mp4",
        "/media/a.mp4",
        "/media/kids/../private/a.mp4",
        "/media/kids/x/../../private/a.mp4",
        "/media/Kids/a.mp4",
        "/media/kids%2Fa.mp4",
        "media/kids/a.mp4",
        "a.mp4",
    ],
)
def test_others_are_not(outside: str) -> None:
    assert not FOLDER.holds(Path(outside))


def test_names_are_compared_byte_by_byte() -> None:
    composed, decomposed = "/media/caf\u00e9", "/media/cafe\u0301"
    assert Folder(Path(composed)).holds(Path(f"{composed}/a.mp4"))
    assert not Folder(Path(composed)).holds(Path(f"{decomposed}/a.mp4"))
    raw = Path(os.fsdecode(b"/media/\xff"))
    assert Folder(raw).holds(raw / "a.mp4")
    assert not Folder(raw).holds(Path("/media/\ufffd/a.mp4"))


def test_a_named_folder_is_what_the_indexer_would_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    for name in ("real", "link", "./real/", "link/../real", str(tmp_path / "link")):
        assert Folder.named(name) == Folder((tmp_path / "real").resolve())
    with pytest.raises(ValueError, match="zero bytes"):
        Folder.named("")
