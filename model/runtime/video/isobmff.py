"""What the header of an MP4 or MOV file says of one video track that FFmpeg does not pass on."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from math import floor
from pathlib import Path
from typing import BinaryIO

from model.runtime.video.cropping import Crop

# Boxes of one level; more are not looked at.
MAX_BOXES = 4096
SAMPLE_ENTRY_BYTES = 78
MAX_SAMPLE_ENTRY = 1 << 16
MAX_ENTRIES = 16
ENCRYPTED_ENTRIES = (b"encv", b"drmi")
DOLBY_VISION = (b"dvcC", b"dvvC", b"dvwC")
# Of the boxes in a sample entry, those that are read. A file may declare thousands of others.
READ_BOXES = (b"sinf", b"clap", *DOLBY_VISION)
Box = tuple[bytes, int, int]


@dataclass(frozen=True)
class SampleEntry:
    """The description of a track's samples: its kind, the stored size, its `READ_BOXES` by their kind."""

    kind: bytes
    width: int
    height: int
    boxes: dict[bytes, bytes]

    @property
    def encrypted(self) -> bool:
        """Whether samples are encrypted (ISO/IEC 14496-12, 8.12 and 23001-7; FairPlay's `drmi`)."""
        if self.kind not in ENCRYPTED_ENTRIES and b"sinf" not in self.boxes:
            return False
        scheme = self.boxes.get(b"sinf", b"")
        at = scheme.find(b"tenc")
        # A track may have the boxes and be clear: the default of `tenc` then says so.
        return at < 0 or scheme[at + 10 : at + 11] != b"\x00"

    @property
    def dolby_vision(self) -> int | None:
        """The profile of Dolby Vision that the entry declares, or None."""
        data = next((self.boxes[kind] for kind in DOLBY_VISION if kind in self.boxes), b"")
        return data[2] >> 1 if len(data) > 2 else None

    @property
    def crop(self) -> Crop:
        """What the clean aperture (`clap`) leaves out, rounded as FFmpeg does; nothing if it is invalid."""
        data = self.boxes.get(b"clap", b"")
        if len(data) < 32 or not self.width or not self.height:
            return Crop()
        values = struct.unpack(">2I2IiIiI", data[:32])
        if not all(values[1::2]):
            return Crop()
        wide, high, right, down = (Fraction(values[i], values[i + 1]) for i in range(0, 8, 2))
        horizontal, vertical = _edges(self.width, wide, right), _edges(self.height, high, down)
        if horizontal is None or vertical is None:
            return Crop()
        return Crop(horizontal[0], vertical[0], horizontal[1], vertical[1])


def read_sample_entries(path: Path, track_id: int) -> list[SampleEntry]:
    """The sample entries of a track; none where the track has none.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        end = file.seek(0, 2)
        for kind, start, stop in boxes(file, 0, end):
            if kind == b"moov":
                return _of_track(file, start, stop, track_id)
    return []


def _edges(size: int, aperture: Fraction, offset: Fraction) -> tuple[int, int] | None:
    """Pixels cut off before and after an aperture whose centre is `offset` from the middle."""
    first = Fraction(size - 1, 2) + offset - (aperture - 1) / 2
    last = first + aperture - 1
    if aperture <= 0 or first < 0 or last > size - 1:
        return None
    return floor(first), size - 1 - floor(last)


def _of_track(file: BinaryIO, start: int, stop: int, track_id: int) -> list[SampleEntry]:
    tracks = [(a, b) for kind, a, b in boxes(file, start, stop) if kind == b"trak"]
    for a, b in tracks:
        header = _find(file, a, b, b"tkhd")
        if header is None:
            continue
        data = _read(file, *header, 32)
        at = 20 if data[:1] == b"\x01" else 12
        if int.from_bytes(data[at : at + 4], "big") != track_id and len(tracks) > 1:
            continue
        place: tuple[int, int] | None = (a, b)
        for kind in (b"mdia", b"minf", b"stbl", b"stsd"):
            place = _find(file, *place, kind) if place else None
        return list(_entries(file, *place)) if place else []
    return []


def _entries(file: BinaryIO, start: int, stop: int) -> Iterator[SampleEntry]:
    for kind, a, b in islice(boxes(file, start + 8, stop), MAX_ENTRIES):
        data = _read(file, a, b, SAMPLE_ENTRY_BYTES)
        if len(data) < SAMPLE_ENTRY_BYTES:
            return
        width, height = struct.unpack_from(">2H", data, 24)
        inner = (box for box in boxes(file, a + SAMPLE_ENTRY_BYTES, b) if box[0] in READ_BOXES)
        yield SampleEntry(kind, width, height, {k: _read(file, x, y, MAX_SAMPLE_ENTRY) for k, x, y in inner})


def _find(file: BinaryIO, start: int, stop: int, wanted: bytes) -> tuple[int, int] | None:
    return next(((a, b) for kind, a, b in boxes(file, start, stop) if kind == wanted), None)


def boxes(file: BinaryIO, start: int, stop: int, most: int = MAX_BOXES) -> Iterator[Box]:
    """Yield kind, start and end of the content of every box between two places, `most` boxes at most."""
    for _ in range(most):
        if start + 8 > stop:
            return
        file.seek(start)
        head = file.read(16)
        if len(head) < 8:
            return
        size, content = int.from_bytes(head[:4], "big"), start + 8
        if size == 1 and len(head) == 16:
            size, content = int.from_bytes(head[8:], "big"), start + 16
        following = stop if size == 0 else start + size
        if following < content:
            return
        yield head[4:8], content, min(following, stop)
        start = following


def _read(file: BinaryIO, start: int, stop: int, most: int) -> bytes:
    file.seek(start)
    return file.read(min(stop - start, most))
