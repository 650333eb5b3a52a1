"""The users that a trusted proxy names, and what each may do: a TOML file.

[users.ann]
scopes = ["admin"]

[users."bob@example.org"]
scopes = ["media"]
folder = "/media/holidays"

[default]            # everybody else whom the proxy lets through; without it, they are refused
scopes = ["search"]
"""

import threading
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.runtime.messages import shorten
from model.runtime.remote.path import media_path
from service.errors import RightsError
from service.rights.folders import Folder
from service.rights.scopes import SCOPES, WHOLE_LIBRARY, Scope


@dataclass(frozen=True)
class UserRights:
    """What a user may do: scopes as they are written, and the folder that limits them."""

    scopes: tuple[Scope, ...]
    folder: Folder | None


class UserFile:
    """The file of users. It is read again when it changes. `rights_of` may be called from any thread."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            RightsError: it cannot be read, or something in it is wrong.
        """
        self.path = path
        self._lock = threading.Lock()
        self._stamp: tuple[int, ...] = ()
        self._users: Mapping[str, UserRights] = {}
        self._default: UserRights | None = None
        self._refresh()

    def rights_of(self, user: str) -> UserRights | None:
        """What a user may do; None: nothing.

        Raises:
            RightsError: the file has changed, and cannot be read or is wrong now.
        """
        with self._lock:
            self._refresh()
            return self._users.get(user, self._default)

    def _refresh(self) -> None:
        try:
            status = self.path.stat()
            stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            if stamp == self._stamp:
                return
            content = tomllib.loads(self.path.read_text(encoding="utf-8"))
        except OSError as error:
            raise RightsError(f"the file of users {self.path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise RightsError(f"the file of users {self.path} is no TOML: {error}") from error
        self._users, self._default = _parse(self.path, content)
        self._stamp = stamp


def _parse(path: Path, content: dict[str, Any]) -> tuple[dict[str, UserRights], UserRights | None]:
    unknown = content.keys() - {"users", "default"}
    if unknown:
        raise RightsError(
            f"the file of users {path} has {shorten(sorted(unknown)[0])}: it may have [users.NAME] and "
            "[default]"
        )
    users = content.get("users", {})
    if not isinstance(users, dict):
        raise RightsError(f"users in {path} is no table: write [users.NAME] for each user")
    default = content.get("default")
    return (
        {name: _rights(path, f"users.{name}", rights) for name, rights in users.items()},
        None if default is None else _rights(path, "default", default),
    )


def _rights(path: Path, where: str, value: object) -> UserRights:
    if not isinstance(value, dict) or value.keys() - {"scopes", "folder"}:
        raise RightsError(f"[{where}] in {path} must have `scopes`, may have `folder`, and nothing else")
    scopes, folder = value.get("scopes"), value.get("folder")
    if not (isinstance(scopes, list) and scopes and all(scope in SCOPES for scope in scopes)):
        raise RightsError(
            f"scopes of [{where}] in {path} is {shorten(scopes)}: list some of {', '.join(SCOPES)}"
        )
    if folder is None:
        return UserRights(tuple(scopes), None)
    if not (isinstance(folder, str) and media_path(folder).is_absolute()):
        raise RightsError(f"folder of [{where}] in {path} is {shorten(folder)}: write an absolute path")
    if set(scopes) & WHOLE_LIBRARY:
        raise RightsError(f"[{where}] in {path} has a folder and {shorten(scopes)}: {_WHOLE}")
    return UserRights(tuple(scopes), Folder.named(folder))


_WHOLE = "admin and metrics speak of the whole library, so leave them or the folder out"
