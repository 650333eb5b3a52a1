"""What is remembered outside of libraries and bundles, and whose notes count."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from indexer.library.trust import remember_media_roots, remembered_media_roots
from model.runtime.remembered import recall, remember, state_folder

KEY = "0123456789abcdef"


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "reelfind"


def test_a_note_is_read_again(state: Path) -> None:
    assert recall("kind", KEY) is None
    assert remember("kind", KEY, "text")
    assert recall("kind", KEY) == "text"
    assert recall("other", KEY) is None
    assert (state / "kind").stat().st_mode & 0o077 == 0, "others may read or write it"


def test_where_notes_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert state_folder() == tmp_path / ".local" / "state" / "reelfind"


def test_nothing_can_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert not remember("kind", KEY, "text")
    assert recall("kind", KEY) is None
    assert not remember_media_roots(tmp_path, [tmp_path], is_new=False)
    assert remembered_media_roots(tmp_path) == ()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_note_of_another_user_does_not_count(state: Path) -> None:
    remember("kind", KEY, "text")
    os.chown(state / "kind" / KEY, 12345, -1)
    assert recall("kind", KEY) is None


@pytest.mark.parametrize("key", ["../../etc/passwd", "short", "", "0" * 65, "G" * 16])
def test_a_key_is_no_path(key: str) -> None:
    with pytest.raises(ValueError, match="must be 16 to 64 hex digits"):
        recall("kind", key)


def test_the_oldest_go_first(state: Path) -> None:
    for number in range(700):
        remember("kind", f"{number:016x}")
    left = sorted(int(path.name, 16) for path in (state / "kind").iterdir())
    assert 512 <= len(left) <= 640
    assert left[-1] == 699


def test_folders_of_a_library_by_whatever_name(tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    (tmp_path / "link").symlink_to(library)
    odd = Path(os.fsdecode(b"/media/\xff"))
    assert remember_media_roots(library, [Path("/media/b"), odd], is_new=True)
    assert remember_media_roots(tmp_path / "link", [Path("/media/a")], is_new=False)
    assert set(remembered_media_roots(library)) == {Path("/media/a"), Path("/media/b"), odd}
    assert remembered_media_roots(tmp_path / "other") == ()
    assert remember_media_roots(library, [Path("/media/c")], is_new=True)
    assert remembered_media_roots(library) == (Path("/media/c"),)
