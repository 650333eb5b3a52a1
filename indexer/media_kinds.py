"""Which files of a folder are looked at as videos: by extension and, if need be, by first bytes."""

import os
from enum import Enum, auto
from pathlib import Path

from model.runtime.media_starts import (
    AMBIGUOUS,
    EXTENSIONS,
    MAYBE_TEXT,
    START_BYTES,
    begins_as_text,
    begins_as_video,
)

__all__ = ["EXTENSIONS", "Kind", "begins_as_text", "begins_as_video", "kind_of"]


class Kind(Enum):
    """What a file is for the scan."""

    VIDEO = auto()
    OTHER_EXTENSION = auto()
    NO_VIDEO = auto()
    """It has an extension that videos have, and begins as something else."""


def kind_of(path: Path) -> Kind:
    """Tell what a regular file is. One that cannot be read counts as what its extension says."""
    extension = path.suffix.lower()
    if extension not in EXTENSIONS:
        return Kind.OTHER_EXTENSION
    if extension not in MAYBE_TEXT and extension not in AMBIGUOUS:
        return Kind.VIDEO
    start = _start_of(path)
    if start is None:
        return Kind.VIDEO
    # An empty `.ts` is more likely a recording that failed than a program without a word.
    is_video = begins_as_video(start) if extension in AMBIGUOUS else not start or not begins_as_text(start)
    return Kind.VIDEO if is_video else Kind.NO_VIDEO


def _start_of(path: Path) -> bytes | None:
    try:
        # A pipe that has taken the file's place must not block the scan.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            return os.read(handle, START_BYTES)
        finally:
            os.close(handle)
    except (OSError, ValueError):
        return None
