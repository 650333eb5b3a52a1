"""Names of files compared as people see them.

A name may be stored in another form than it is typed: macOS decomposes accents (NFD) that keyboards compose
(NFC), and writes a narrow no-break space into the names of recordings. On a Linux disk these are other names.
"""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from model.runtime.messages import shorten


def as_seen(name: str) -> str:
    """A form that is the same for names that look the same: composed, all spaces plain, nothing invisible."""
    visible = (c for c in unicodedata.normalize("NFC", name) if unicodedata.category(c) != "Cf")
    return "".join(" " if unicodedata.category(c) == "Zs" else c for c in visible)


def without_case(name: str) -> str:
    """As `as_seen`, and the same for names that differ only in case."""
    return as_seen(unicodedata.normalize("NFC", as_seen(name).casefold()))


def find_as_seen(path: Path) -> Path:
    """The one existing path that looks like `path`; `path` itself if it exists, or if none or several do."""
    if os.path.lexists(path) or path.parent == path:
        return path
    parent = find_as_seen(path.parent)
    if os.path.lexists(parent / path.name):
        return parent / path.name
    alike = [name for name in _names_in(parent) if as_seen(name) == as_seen(path.name)]
    return parent / alike[0] if len(alike) == 1 else path


def near(path: Path) -> str:
    """A hint for an error about a missing path: the one that differs only in form or case; else empty."""
    if path.exists() or path.parent == path:
        return ""
    parent = find_as_seen(path.parent)
    alike = [name for name in _names_in(parent) if without_case(name) == without_case(path.name)]
    return f" (there is {shorten(str(parent / alike[0]), 200)})" if len(alike) == 1 else ""


def _names_in(folder: Path) -> list[str]:
    try:
        return [child.name for child in folder.iterdir()]
    except OSError:
        return []
