"""Names of uploaded files, and where they go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.errors import JobsOffError, QueryError
from service.jobs.uploads import PartialFile, remove_abandoned, safe_name, upload_folder


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("beach.mp4", "beach.mp4"),
        ("../../etc/passwd.MOV", "passwd.MOV"),
        ("C:\\films\\a.mkv", "a.mkv"),
        (".hidden.mp4", "hidden.mp4"),
        ("a\n\x00b\u202e:c?.mp4", "a b c.mp4"),
        ("  two   spaces .mp4 ", "two spaces.mp4"),
        ("....mp4", None),
        ("cafe\u0301.mp4", "caf\u00e9.mp4"),
        ("a.mp4.exe", None),
        ("folder.mp4/", None),
    ],
)
def test_names_are_made_safe(name: str, safe: str | None) -> None:
    if safe is None:
        with pytest.raises(QueryError):
            safe_name(name, "/file")
    else:
        assert safe_name(name, "/file") == safe


def test_long_names_are_cut_between_characters() -> None:
    name = safe_name("ü" * 300 + ".mp4", "/file")
    assert name.endswith("ü.mp4")
    assert 190 < len(name.encode()) <= 200


def test_uploads_go_to_a_folder_that_the_client_sees(tmp_path: Path) -> None:
    uploads = tmp_path / "media" / "uploads"
    roots = [tmp_path / "media"]
    assert upload_folder(uploads, roots, None) == uploads
    assert upload_folder(uploads, roots, tmp_path / "media") == uploads
    assert upload_folder(uploads, roots, uploads / "ada") == uploads / "ada"
    for folder, within in ((None, None), (tmp_path, None), (uploads, tmp_path / "media" / "other")):
        with pytest.raises(JobsOffError):
            upload_folder(folder, roots, within)


def test_parts_that_nobody_goes_on_with_are_removed(tmp_path: Path) -> None:
    parts = [PartialFile.begin(tmp_path, 10, 1) for _ in range(2)]
    for part in parts:
        part.write(b"abc")
        part.keep()
    old, new = (tmp_path / f".reelfind-upload-{part.part_id}.part" for part in parts)
    os.utime(old, (0, 0))
    remove_abandoned(tmp_path)
    assert list(tmp_path.iterdir()) == [new]
    reopened = PartialFile.reopen(tmp_path, 10, parts[1].part_id)
    assert reopened is not None
    assert reopened.size == 3
    reopened.write(b"def")
    assert reopened.finish("a.mp4")[0].read_bytes() == b"abcdef"
    reopened.discard()
    assert PartialFile.reopen(tmp_path, 10, parts[0].part_id) is None
