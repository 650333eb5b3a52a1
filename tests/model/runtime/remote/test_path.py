"""Addresses where paths are expected."""

import os
from pathlib import Path

import pytest

from model.runtime.errors import InputError
from model.runtime.remote.path import RemotePath, media_path, parents_of, parse_remote, real_path

ADDRESSES = [
    "s3://bucket/a folder/ü #1?.mp4",
    "gs://bucket/100%.mp4",
    "az://container/x/y/z.mov",
    "https://host.example:8443/videos/a%20b.mp4",
    "http://[::1]:80/a.mp4",
    "s3://bucket",
]


@pytest.mark.parametrize("text", ADDRESSES)
def test_an_address_stays_as_it_is_written(text: str) -> None:
    path = parse_remote(text)
    assert str(path) == os.fspath(path) == text
    assert os.fsencode(path) == text.encode()
    assert media_path(os.fsencode(path)) == path
    assert isinstance(media_path(text), RemotePath)
    # Programs that make a path of it take a slash away.
    assert parse_remote(os.fspath(Path(text))) == path
    assert path.is_absolute()
    assert path.resolve() == real_path(path) == path


def test_it_has_the_parts_of_a_path() -> None:
    path = parse_remote("s3://bucket/a/b.tar.mp4/")
    assert (path.name, path.stem, path.suffix) == ("b.tar.mp4", "b.tar", ".mp4")
    assert str(path.parent) == "s3://bucket/a"
    assert isinstance(path.parent / "c.mp4", RemotePath)
    assert path.is_relative_to(parse_remote("s3://bucket"))
    assert not path.is_relative_to(parse_remote("s3://bucket/ab"))
    assert not path.is_relative_to(Path("/"))
    assert list(map(str, parents_of(path))) == ["s3://bucket", "s3://bucket/a"]


def test_paths_stay_paths() -> None:
    for text in ("/media/s3:/x.mp4", "relative/a.mp4", "C:/a.mp4", "s3", "/a\udcff.mp4"):
        assert type(media_path(text)) is type(Path())
        assert media_path(os.fsencode(text)) == Path(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("s3:///a.mp4", "no name of a bucket"),
        ("s3://bucket/a//b.mp4", "a name in it is empty"),
        ("s3://bucket/a/../b.mp4", "or is `.` or `..`"),
        ("s3://bucket/a\nb.mp4", "control character"),
        ("https://host", "https://HOST/FILE"),
        ("https:///a.mp4", "https://HOST/FILE"),
        ("https://user:secret@host/a.mp4", "no user, no password"),
        ("https://host/a.mp4?signature=x", "no user, no password"),
        ("https://host/a.mp4#t=1", "no user, no password"),
    ],
)
def test_a_wrong_address_is_refused(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_remote(text)
