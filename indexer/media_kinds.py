"""Which files of a folder are looked at as videos: by extension and, if need be, by what they hold."""

import os
from enum import Enum, auto
from pathlib import Path
from typing import BinaryIO, cast

from model.runtime.media_starts import (
    AMBIGUOUS,
    EXTENSIONS,
    MAYBE_TEXT,
    START_BYTES,
    begins_as_text,
    begins_as_video,
)
from model.runtime.remote.path import RemotePath

__all__ = ["EXTENSIONS", "OPENED", "Kind", "begins_as_text", "begins_as_video", "kind_of"]

#: Extensions of files that are opened to tell what they are.
OPENED = MAYBE_TEXT | AMBIGUOUS | {".gif"}
#: Of a picture as large as this it does not matter whether there are more in the file.
_MOST_GIF_BYTES = 16 << 20


class Kind(Enum):
    """What a file is for the scan."""

    VIDEO = auto()
    OTHER_EXTENSION = auto()
    NO_VIDEO = auto()
    """It has an extension that videos have, and is something else, such as a text or a GIF of one picture."""


def kind_of(path: Path) -> Kind:
    """Tell what a regular file is. One that cannot be read counts as what its extension says."""
    extension = path.suffix.lower()
    if extension not in EXTENSIONS:
        return Kind.OTHER_EXTENSION
    if extension == ".gif":
        return Kind.NO_VIDEO if _is_still_gif(path) else Kind.VIDEO
    if extension not in MAYBE_TEXT and extension not in AMBIGUOUS:
        return Kind.VIDEO
    start = _start_of(path)
    if start is None:
        return Kind.VIDEO
    # An empty `.ts` is more likely a recording that failed than a program without a word.
    is_video = begins_as_video(start) if extension in AMBIGUOUS else not start or not begins_as_text(start)
    return Kind.VIDEO if is_video else Kind.NO_VIDEO


def _opened(path: Path, buffering: int) -> BinaryIO:
    if isinstance(path, RemotePath):
        return cast("BinaryIO", path.open("rb", buffering))
    # A pipe that has taken the file's place must not block the scan.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    return os.fdopen(handle, "rb", buffering)


def _start_of(path: Path) -> bytes | None:
    try:
        with _opened(path, 0) as file:
            return file.read(START_BYTES)
    except (OSError, ValueError):
        return None


def _is_still_gif(path: Path) -> bool:
    """Whether a GIF holds one picture, or none. False for what is no GIF: a decoder says what is wrong."""
    try:
        with _opened(path, 1 << 16) as file:
            return file.read(6) in (b"GIF87a", b"GIF89a") and not _has_two_pictures(file)
    except (OSError, ValueError):
        return False


def _has_two_pictures(file: BinaryIO) -> bool:
    """Whether a second picture follows in a GIF, behind its signature."""
    pictures = 0
    _skip_colours(file.read(7)[4:5], file)
    while (kind := file.read(1)) and file.tell() < _MOST_GIF_BYTES:
        if kind == b"!":  # an extension: its label, then blocks
            file.read(1)
        elif kind == b",":
            pictures += 1
            if pictures == 2:
                return True
            _skip_colours(file.read(9)[8:9], file)
            file.read(1)  # the size of codes, then blocks
        else:  # the end, or damage
            return False
        while (length := file.read(1)) and length != b"\0":
            file.seek(length[0], os.SEEK_CUR)
    return bool(kind)


def _skip_colours(flags: bytes, file: BinaryIO) -> None:
    """Skip the table of colours that these flags announce."""
    if flags and flags[0] & 0x80:
        file.seek(3 << ((flags[0] & 7) + 1), os.SEEK_CUR)
