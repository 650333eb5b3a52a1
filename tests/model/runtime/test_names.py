"""Names of files that look the same are the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.runtime.names import as_seen, find_as_seen, near, without_case

NFC, NFD = "caf\u00e9.mp4", "cafe\u0301.mp4"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (NFC, NFD),
        ("\u1100\u1161\u11a8.mp4", "\uac01.mp4"),  # Hangul: letters, and the syllable
        ("\u212b.mp4", "\u00c5.mp4"),  # the sign of the ångström, and the letter
        ("at 9.41.00\u202fAM.mov", "at 9.41.00 AM.mov"),  # as macOS names recordings
        ("a\u00a0b.mp4", "a b.mp4"),
        ("left\u200e.mp4", "left.mp4"),
    ],
)
def test_names_that_look_the_same(one: str, other: str) -> None:
    assert as_seen(one) == as_seen(other)


@pytest.mark.parametrize(
    ("one", "other"), [("a.mp4", "A.mp4"), ("x\u00b2.mp4", "x2.mp4"), ("e.mp4", "\u00e9.mp4")]
)
def test_names_that_look_different(one: str, other: str) -> None:
    assert as_seen(one) != as_seen(other)


def test_case_is_folded_in_every_form() -> None:
    assert without_case("CAF\u00c9.MP4") == without_case(NFD) == without_case(NFC)
    assert without_case("STRASSE.mp4") == without_case("straße.mp4")


def test_the_file_that_looks_the_same_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "e\u0301te\u0301"
    folder.mkdir()
    (folder / NFD).touch()
    typed = tmp_path / "\u00e9t\u00e9" / NFC
    assert find_as_seen(typed) == folder / NFD
    assert find_as_seen(folder / NFD) == folder / NFD
    assert find_as_seen(typed.with_name("none.mp4")).name == "none.mp4"
    (folder / NFC).touch()
    assert find_as_seen(typed) == folder / NFC


def test_of_several_that_look_the_same_none_is_chosen(tmp_path: Path) -> None:
    for name in ("a\u00a0b.mp4", "a\u202fb.mp4"):
        (tmp_path / name).touch()
    assert find_as_seen(tmp_path / "a b.mp4") == tmp_path / "a b.mp4"


def test_an_error_may_name_what_is_near(tmp_path: Path) -> None:
    (tmp_path / NFD).touch()
    assert near(tmp_path / NFC).startswith(' (there is "')
    assert near(tmp_path / "CAFÉ.MP4") == near(tmp_path / NFC)
    assert near(tmp_path / NFD) == near(tmp_path / "other.mp4") == near(tmp_path / "none" / "a.mp4") == ""
