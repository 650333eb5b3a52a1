"""What a user's runs of Reelfind remember on this computer, outside of libraries and bundles.

A library or a bundle may come from a stranger, so nothing in it can say that it is to be trusted. The notes
lie in `$XDG_STATE_HOME/reelfind`, by default `~/.local/state/reelfind`: small files, one for each thing. They
are conveniences: where they cannot be written or read, the question is only asked again.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from model.runtime.files import replace_text

_KEY = re.compile(r"[0-9a-f]{16,64}")
#: Of each kind, about this many notes are kept; the oldest go first.
_MOST = 512


def state_folder() -> Path | None:
    """The folder of the notes; None where the user has no home."""
    base = os.environ.get("XDG_STATE_HOME", "")
    if base.startswith("/"):
        return Path(base) / "reelfind"
    try:
        return Path.home() / ".local" / "state" / "reelfind"
    except RuntimeError:
        return None


def remember(kind: str, key: str, text: str = "") -> bool:
    """Write a note, in place of an earlier one. → Whether it could be written.

    Args:
        kind: what the note is about: a folder of that name holds it.
        key: what it is about in hex, such as a checksum: 16 to 64 digits.
        text: what is to be remembered.
    """
    path = _path(kind, key)
    if path is None:
        return False
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_text(path, text, shared=True)
    except (OSError, ValueError):
        return False
    with contextlib.suppress(OSError):
        _forget_oldest(path.parent)
    return True


def recall(kind: str, key: str) -> str | None:
    """The text of a note; None where there is none, or another user wrote it. See `remember`."""
    path = _path(kind, key)
    if path is None:
        return None
    try:
        with path.open(encoding="utf-8") as file:
            return file.read() if os.fstat(file.fileno()).st_uid == os.geteuid() else None
    except (OSError, ValueError):
        return None


def _path(kind: str, key: str) -> Path | None:
    if not _KEY.fullmatch(key):
        raise ValueError(f"the key of a note is {key!r}: it must be 16 to 64 hex digits")
    folder = state_folder()
    return None if folder is None else folder / kind / key


def _forget_oldest(folder: Path) -> None:
    names = os.listdir(folder)  # noqa: PTH208  names alone, of a folder that is mostly small
    if len(names) > _MOST + _MOST // 4:
        notes = sorted((folder / name for name in names), key=lambda note: note.stat().st_mtime_ns)
        for note in notes[: len(notes) - _MOST]:
            note.unlink(missing_ok=True)
