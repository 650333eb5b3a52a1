"""The file `access.sqlite`: keys, sessions that have ended, and the secret that sessions are signed with.

It lies in the service's state folder, not in the library: a library that a stranger made, or a copy of one,
must bring no keys. Only its owner may read it.

The service asks it at each request, so what another process writes counts at once. It uses SQLite's rollback
journal: a library's disk may be a share of the network, where shared memory does not work.
"""

import os
import secrets
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from model.runtime.errors import InputError
from model.runtime.remote.path import media_path
from service.errors import RightsError
from service.rights.folders import Folder
from service.rights.keys import ApiKey, KeyText, hash_secret, new_key_text
from service.rights.scopes import Scope
from service.state import making_state

FILE_NAME = "access.sqlite"
_FORMAT = 1
# Readers wait while a change is flushed to the disk, which takes milliseconds.
_BUSY_SECONDS = 2.0
_TABLES = """
CREATE TABLE keys (
    key_id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    scopes TEXT NOT NULL,
    folder BLOB,
    secret_hash TEXT NOT NULL,
    created_at REAL NOT NULL,
    expires_at REAL,
    revoked_at REAL
) STRICT, WITHOUT ROWID;
CREATE TABLE ended_sessions (session_id TEXT PRIMARY KEY, expires_at REAL NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
"""


class AccessStore:
    """The file of keys and sessions. Every method may be called from any thread.

    A file that is put in its place, such as a backup, counts from the next call on. Without one no key
    counts.
    """

    def __init__(self, folder: Path) -> None:
        """Open the store in a state folder; both are made, for their owner alone, where they do not exist.

        Raises:
            InputError: folder or file cannot be made or read, or others may read the file.
            RightsError: the file is damaged, or a later version wrote it.
        """
        self.path = folder / FILE_NAME
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        _make_private(folder, self.path)
        with self._open() as database:
            if database is None:
                raise RightsError(f"{self.path} was removed while it was opened: try again")
            _prepare(self.path, database)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._database is not None:
                self._database.close()
            self._database = self._file = None

    def create(
        self,
        scopes: tuple[Scope, ...],
        *,
        name: str = "",
        folder: Folder | None = None,
        expires_at: float | None = None,
    ) -> tuple[KeyText, ApiKey]:
        """Make a key. The first of what is returned has the secret, which is stored nowhere.

        Raises:
            RightsError: the file cannot be written.
        """
        text = new_key_text()
        key = ApiKey(
            text.key_id, name, scopes, folder, hash_secret(text.secret), time.time(), expires_at, None
        )
        row = (
            key.key_id,
            key.name,
            " ".join(key.scopes),
            None if folder is None else os.fsencode(folder.path),
            key.secret_hash,
            key.created_at,
            key.expires_at,
        )
        self._write("INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, NULL)", row)
        return text, key

    def find(self, key_id: str) -> ApiKey | None:
        """The key with an id, also one that does not count any more; None: there is none."""
        rows = self._read("SELECT * FROM keys WHERE key_id = ?", (key_id,))
        return _key(rows[0]) if rows else None

    def all_keys(self) -> list[ApiKey]:
        """All keys, the oldest first."""
        return [_key(row) for row in self._read("SELECT * FROM keys ORDER BY created_at, key_id")]

    def revoke(self, key_id: str) -> bool:
        """Let a key not count any more. → Whether it counted before, as far as revoking goes.

        Raises:
            RightsError: the file cannot be written.
        """
        statement = "UPDATE keys SET revoked_at = ? WHERE key_id = ? AND revoked_at IS NULL"
        return self._write(statement, (time.time(), key_id)) > 0

    def end_session(self, session_id: str, expires_at: float) -> None:
        """Let a session not count any more. `expires_at` is when it would end by itself.

        Raises:
            RightsError: the file cannot be written.
        """
        self._write("DELETE FROM ended_sessions WHERE expires_at < ?", (time.time(),))
        self._write("INSERT OR IGNORE INTO ended_sessions VALUES (?, ?)", (session_id, expires_at))

    def has_ended(self, session_id: str) -> bool:
        """Whether a session was ended."""
        return bool(self._read("SELECT 1 FROM ended_sessions WHERE session_id = ?", (session_id,)))

    def secret(self) -> bytes:
        """The secret that sessions and addresses are signed with; b"": the file is missing."""
        rows = self._read("SELECT value FROM secrets WHERE name = 'signing'")
        return bytes(rows[0][0]) if rows else b""

    def _read(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self._open() as database:
            if database is None:
                return []
            return database.execute(statement, values).fetchall()

    def _write(self, statement: str, values: tuple[Any, ...]) -> int:
        """Run a statement that changes rows. → How many it changed."""
        with self._open() as database:
            if database is None:
                raise RightsError(f"{self.path} is missing: restore it, or start the service again")
            with database:
                return database.execute(statement, values).rowcount

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection | None]:
        """The connection to the file that is at the path now; None: there is none. Holds the lock."""
        with self._lock:
            try:
                yield self._current()
            except (OSError, sqlite3.Error) as error:
                raise RightsError(
                    f"{self.path} cannot be read or written ({error}): check the disk and the folder's "
                    "owner, restore it from a backup, or move it away and make new keys"
                ) from error

    def _current(self) -> sqlite3.Connection | None:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        if self._database is None or self._file != (found.st_dev, found.st_ino):
            if self._database is not None:
                self._database.close()
            # mode=rw: SQLite must not make a file, which others might read.
            address = f"{self.path.absolute().as_uri()}?mode=rw"
            self._database = sqlite3.connect(
                address, uri=True, timeout=_BUSY_SECONDS, check_same_thread=False
            )
            self._file = (found.st_dev, found.st_ino)
        return self._database


def _make_private(folder: Path, path: Path) -> None:
    with making_state(folder):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise InputError(
            f"state {path} may be read by others than its owner (mode {mode:04o}): run `chmod 600 {path}`",
            field="state",
        )


def _prepare(path: Path, database: sqlite3.Connection) -> None:
    """Make the tables, unless they are there."""
    # Two processes may come here at once.
    database.execute("BEGIN IMMEDIATE")
    try:
        (found,) = database.execute("PRAGMA user_version").fetchone()
        if found > _FORMAT:
            raise RightsError(
                f"{path} has format {found}, this program reads {_FORMAT}: use the version of Reelfind that "
                "wrote it"
            )
        if found == 0:
            for statement in filter(str.strip, _TABLES.split(";")):
                database.execute(statement)
            database.execute("INSERT INTO secrets VALUES ('signing', ?)", (secrets.token_bytes(32),))
            database.execute(f"PRAGMA user_version = {_FORMAT}")
        database.commit()
    except BaseException:
        database.rollback()
        raise


def _key(row: tuple[Any, ...]) -> ApiKey:
    key_id, name, scopes, folder, secret_hash, created_at, expires_at, revoked_at = row
    return ApiKey(
        key_id,
        name,
        tuple(cast(Scope, scope) for scope in scopes.split()),
        None if folder is None else Folder(media_path(folder)),
        secret_hash,
        created_at,
        expires_at,
        revoked_at,
    )
