"""The log of what was changed, by whom, and of attempts that were refused: JSON lines.

A line is written whole, with one call, while the file is locked: the service and `reelfind keys` may write at
the same time. When the file would grow beyond its size it is renamed to `NAME.1`, that to `NAME.2`, and so
on.
"""

import fcntl
import json
import logging
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Literal

from model.runtime.errors import InputError
from service.settings import Settings

logger = logging.getLogger("reelfind")

#: Whether it was done, was refused because of who asked, or failed.
Outcome = Literal["done", "refused", "failed"]


@dataclass(frozen=True)
class AuditEntry:
    """What happened.

    Attributes:
        action: what was to be done, such as `session.create` or `library.reload`.
        outcome: what became of it.
        who: the name of the key or the user; None: not known.
        key_id: the id of the key; None: it was none.
        via: how the request said who it is from: `key`, `session`, `url`, `proxy`, `none`; `command` for
            the command line.
        address: the address it came from; None: the command line.
        target: what it was about: a path of the API, or the id of a key.
        reason: why it was refused, or failed.
        status: the HTTP status.
    """

    action: str
    outcome: Outcome
    who: str | None = None
    key_id: str | None = None
    via: str | None = None
    address: str | None = None
    target: str | None = None
    reason: str | None = None
    status: int | None = None


def open_audit_log(settings: Settings) -> "AuditLog | None":
    """The log that the settings name; None: none is written.

    Raises:
        InputError: the file cannot be written.
    """
    if settings.audit_file is None:
        return None
    log = AuditLog(settings.audit_file, int(settings.audit_megabytes * 1e6), settings.audit_files)
    try:
        log.append(b"")
    except OSError as error:
        raise InputError(
            f"the audit log {log.path} cannot be written: {error.strerror}. Make its folder for the user "
            "that runs the service, or set REELFIND_AUDIT_LOG to another file",
        ) from error
    return log


class AuditLog:
    """The file. Only its owner may read it. Every method may be called from any thread."""

    def __init__(self, path: Path, max_bytes: int, num_old: int) -> None:
        """`num_old` full files are kept beside the one that is written."""
        self.path = path
        self._max_bytes = max_bytes
        self._num_old = num_old

    def write(self, entry: AuditEntry) -> None:
        """Append a line. What goes wrong is logged: the service answers also when the disk is full."""
        fields = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **vars(entry)}
        known = {name: value for name, value in fields.items() if value is not None}
        line = json.dumps(known).encode() + b"\n"
        try:
            self.append(line)
        except OSError as error:
            logger.error(
                "the audit log %s cannot be written: %s; %s", self.path, error.strerror, line.decode()
            )

    def append(self, line: bytes) -> None:
        """Append bytes in one piece.

        Raises:
            OSError: the file cannot be written.
        """
        while True:
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                if not self._is_at_path(handle):
                    continue  # another process has renamed it
                size = os.fstat(handle).st_size
                if size and size + len(line) > self._max_bytes:
                    self._rotate()
                    continue
                os.write(handle, line)
                return
            finally:
                os.close(handle)

    def _is_at_path(self, handle: int) -> bool:
        try:
            return os.path.samestat(os.fstat(handle), self.path.stat())
        except FileNotFoundError:
            return False

    def _rotate(self) -> None:
        if not self._num_old:
            self.path.unlink()
            return
        names = [self.path, *(Path(f"{self.path}.{number}") for number in range(1, self._num_old + 1))]
        for newer, older in reversed(list(pairwise(names))):
            if newer.exists():
                newer.replace(older)
