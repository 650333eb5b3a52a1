"""Which folders a user has indexed into a library: from these alone the service plays its videos.

The library cannot say so itself: one that a stranger made could name any file of the computer.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from model.runtime.remembered import recall, remember
from model.runtime.remote.path import media_path

_KIND = "media-roots"


def remember_media_roots(library: Path, roots: Iterable[Path], *, is_new: bool) -> bool:
    """Remember that this user has indexed `roots` into a library. → Whether that was possible.

    Args:
        library: the library's folder.
        roots: real paths of folders.
        is_new: whether the library has just been made; otherwise the folders of earlier runs count too.
    """
    known = () if is_new else remembered_media_roots(library)
    together = sorted({os.fspath(root) for root in (*known, *roots)})
    # The escapes of ASCII keep names that are not UTF-8.
    text = json.dumps({"library": os.path.realpath(library), "media_roots": together})
    return remember(_KIND, library_key(library), text)


def remembered_media_roots(library: Path) -> tuple[Path, ...]:
    """The folders that this user has indexed into a library on this computer."""
    return _parse(recall(_KIND, library_key(library)))


@lru_cache(maxsize=8)
def _parse(text: str | None) -> tuple[Path, ...]:
    try:
        return tuple(media_path(root) for root in json.loads(text or "")["media_roots"])
    except (ValueError, KeyError, TypeError):
        return ()


def library_key(library: Path) -> str:
    """Names a library among others of this computer: 32 hexadecimal digits, of its real path."""
    return hashlib.sha256(os.fsencode(os.path.realpath(library))).hexdigest()[:32]
