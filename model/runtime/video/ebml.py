"""What the header of a Matroska or WebM file says of one video track that FFmpeg does not pass on."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from model.runtime.video.cropping import Crop

# Elements of one level; more are not looked at.
MAX_ELEMENTS = 4096
MAX_TRACKS_BYTES = 1 << 20
SEGMENT, SEEK_HEAD, SEEK, SEEK_ID, SEEK_POSITION = 0x18538067, 0x114D9B74, 0x4DBB, 0x53AB, 0x53AC
TRACKS, TRACK_ENTRY, TRACK_TYPE, VIDEO = 0x1654AE6B, 0xAE, 0x83, 0xE0
CLUSTER = 0x1F43B675
CROP_BOTTOM, CROP_TOP, CROP_LEFT, CROP_RIGHT = 0x54AA, 0x54BB, 0x54CC, 0x54DD
ENCODINGS, ENCODING, ENCODING_TYPE, ENCRYPTION = 0x6D80, 0x6240, 0x5033, 0x5035
MAPPING, MAPPING_TYPE, MAPPING_DATA = 0x41E4, 0x41E7, 0x41ED
VIDEO_TYPE, ENCRYPTS = 1, 1
DOLBY_VISION = (b"dvcC", b"dvvC", b"dvwC")


@dataclass(frozen=True)
class VideoTrack:
    """A video track: the edges not to be shown, whether it is encrypted, its profile of Dolby Vision."""

    crop: Crop
    encrypted: bool
    dolby_vision: int | None


def read_video_track(path: Path, number: int) -> VideoTrack | None:
    """The video track with this number, counted from 0 among the video tracks; None where there is none.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        data = _tracks(file, file.seek(0, 2))
    entries = [body for kind, body in _elements(data) if kind == TRACK_ENTRY]
    videos = [entry for entry in entries if _number(_children(entry).get(TRACK_TYPE, b"")) == VIDEO_TYPE]
    if number >= len(videos):
        return None
    track = _children(videos[number])
    video = _children(track.get(VIDEO, b""))
    left, top, right, bottom = (
        _number(video.get(kind, b"")) for kind in (CROP_LEFT, CROP_TOP, CROP_RIGHT, CROP_BOTTOM)
    )
    encodings = [body for kind, body in _elements(track.get(ENCODINGS, b"")) if kind == ENCODING]
    mappings = [_children(body) for kind, body in _elements(videos[number]) if kind == MAPPING]
    return VideoTrack(
        Crop(left, top, right, bottom),
        any(map(_encrypts, encodings)),
        next((profile for entry in mappings if (profile := _dolby_vision(entry)) is not None), None),
    )


def _dolby_vision(mapping: dict[int, bytes]) -> int | None:
    """The profile in an entry that holds a configuration of Dolby Vision, else None."""
    data = mapping.get(MAPPING_DATA, b"")
    return data[2] >> 1 if mapping.get(MAPPING_TYPE) in DOLBY_VISION and len(data) > 2 else None


def _encrypts(encoding: bytes) -> bool:
    parts = _children(encoding)
    return ENCRYPTION in parts or _number(parts.get(ENCODING_TYPE, b"")) == ENCRYPTS


def _tracks(file: BinaryIO, end: int) -> bytes:
    """The content of the element Tracks: before the first cluster, or where the seek head says it is."""
    for kind, start, stop in _places(file, 0, end):
        if kind != SEGMENT:
            continue
        elsewhere: int | None = None
        for inner, a, b in _places(file, start, stop):
            if inner == TRACKS:
                return _read(file, a, b)
            if inner == SEEK_HEAD:
                elsewhere = _position(_read(file, a, b))
            if inner == CLUSTER:
                break
        if elsewhere is not None:
            for inner, a, b in _places(file, start + elsewhere, stop):
                return _read(file, a, b) if inner == TRACKS else b""
    return b""


def _position(seek_head: bytes) -> int | None:
    for kind, body in _elements(seek_head):
        entry = _children(body) if kind == SEEK else {}
        if _number(entry.get(SEEK_ID, b"")) == TRACKS:
            return _number(entry.get(SEEK_POSITION, b""))
    return None


def _places(file: BinaryIO, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, start and end of the content of every element between two places of a file."""
    for _ in range(MAX_ELEMENTS):
        if start >= stop:
            return
        file.seek(start)
        head = _head(file.read(12))
        if head is None:
            return
        kind, size, length = head
        content = start + length
        following = stop if size is None else min(content + size, stop)
        yield kind, content, following
        start = following


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    for _ in range(MAX_ELEMENTS):
        head = _head(data[at : at + 12])
        if head is None:
            return
        kind, size, length = head
        end = len(data) if size is None else at + length + size
        yield kind, data[at + length : end]
        at = end


def _children(data: bytes) -> dict[int, bytes]:
    return dict(_elements(data))


def _head(data: bytes) -> tuple[int, int | None, int] | None:
    """Number and size (None: unknown) of an element and the length of its head; None where there is none."""
    if not data or not data[0]:
        return None
    width = 9 - data[0].bit_length()
    if width > 4 or len(data) <= width or not data[width]:
        return None
    more = 9 - data[width].bit_length()
    size = int.from_bytes(data[width : width + more], "big") & ((1 << 7 * more) - 1)
    return int.from_bytes(data[:width], "big"), None if size == (1 << 7 * more) - 1 else size, width + more


def _number(data: bytes) -> int:
    return int.from_bytes(data[:8], "big")


def _read(file: BinaryIO, start: int, stop: int) -> bytes:
    file.seek(start)
    return file.read(min(stop - start, MAX_TRACKS_BYTES))
