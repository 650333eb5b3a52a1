"""The file of a proxy's users."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.errors import RightsError
from service.rights.folders import Folder
from service.rights.users import UserFile, UserRights

USERS = """
[users.ann]
scopes = ["admin"]

[users."bob@example.org"]
scopes = ["media", "index"]
folder = "/media/holidays"
"""


def test_users_have_the_rights_that_are_written(tmp_path: Path) -> None:
    path = tmp_path / "users.toml"
    path.write_text(USERS)
    users = UserFile(path)
    assert users.rights_of("ann") == UserRights(("admin",), None)
    holidays = Folder(Path("/media/holidays"))
    assert users.rights_of("bob@example.org") == UserRights(("media", "index"), holidays)
    assert users.rights_of("eve") is None
    assert users.rights_of("Ann") is None


def test_a_change_counts_at_once(tmp_path: Path) -> None:
    path = tmp_path / "users.toml"
    path.write_text(USERS)
    users = UserFile(path)
    path.write_text('[default]\nscopes = ["search"]\n')
    assert users.rights_of("ann") == users.rights_of("eve") == UserRights(("search",), None)
    path.write_text("[users")
    with pytest.raises(RightsError, match="is no TOML"):
        users.rights_of("ann")
    path.unlink()
    with pytest.raises(RightsError, match="cannot be read"):
        users.rights_of("ann")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[user.ann]\nscopes = ['admin']", 'has "user": it may have'),
        ("users = 3", r"users in .* is no table"),
        ("[users]\nann = 3", r"\[users.ann\] in .* must have `scopes`"),
        ("[users.ann]\nscope = 'admin'", r"must have `scopes`"),
        ("[users.ann]\nscopes = 'admin'", r"scopes of \[users.ann\] .* list some of search, media"),
        ("[users.ann]\nscopes = []", r"list some of search, media"),
        ("[users.ann]\nscopes = [['admin']]", r"list some of search, media"),
        ("[users.ann]\nscopes = ['media']\nfolder = 'x'", "write an absolute path"),
        ("[default]\nscopes = ['admin']\nfolder = '/x'", r"\[default\] .* has a folder and .*whole library"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "users.toml"
    path.write_text(content)
    os.utime(path, ns=(1, 1))
    with pytest.raises(RightsError, match=said):
        UserFile(path)
