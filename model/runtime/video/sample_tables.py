"""Refuses MP4 and MOV files whose tables list far more samples than the file has bytes.

FFmpeg takes some 40 bytes of memory for each sample when it opens such a file. Where all samples have one
size, a table of 20 bytes can list billions of them.
"""

import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from model.runtime.errors import VideoError
from model.runtime.video.isobmff import Box, boxes

FOLDERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"mvex", b"moof", b"traf")
# A sample takes so many bytes of a file, at least: 16-bit sound of one channel.
LEAST_BYTES = 2
# Sound whose samples last a tick each is listed in parts of so many samples, at least.
CHUNK = 1024
# Boxes of the file that are looked at: a recording of a day in parts of a second has fewer.
MAX_FRAGMENTS = 1 << 20
# Each entry of an edit list may show all samples once more.
MAX_SHOWN = 50_000_000
# The header of an old QuickTime movie that is compressed.
MAX_HEADER_BYTES = 64 << 20
NO_FILE = 1 << 63  # more bytes than a file can have
# Flags of a run of samples in a fragment, and of the fragment's own defaults.
DURATIONS, SIZES, FLAGS, SHIFTS = 0x100, 0x200, 0x400, 0x800
BASE, DESCRIPTION, DEFAULT_DURATION, DEFAULT_SIZE = 0x1, 0x2, 0x8, 0x10


def check_sample_tables(path: Path) -> None:
    """Check the tables of an MP4 or MOV file; a file of another kind has none.

    Raises:
        OSError: the file cannot be read.
        VideoError: the tables list more than there can be.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        tables = _Tables()
        for kind, start, stop in boxes(file, 0, size, MAX_FRAGMENTS):
            if kind not in (b"moov", b"moof"):
                continue
            tables.read(file, start, stop)
            if tables.num_bytes > size or tables.num_shown > MAX_SHOWN:
                raise VideoError(f"{path}: lists more samples than it can hold", "corrupt")
            if kind == b"moov" and not tables.has_fragments:
                return


@dataclass
class _Track:
    """What a track's tables say."""

    num_samples: int = 0
    size: int = 0
    num_edits: int = 0
    is_sound: bool = False
    is_even: bool = False  # each sample lasts one tick: FFmpeg lists sound by chunks

    @property
    def num_bytes(self) -> int:
        """What its samples take of the file at least, as far as FFmpeg lists each of them."""
        listed = self.num_samples // CHUNK if self.is_sound and self.is_even else self.num_samples
        return listed * max(self.size, LEAST_BYTES) if self.size else 0


class _Tables:
    """Adds up what tables list: the bytes that all samples take at least, and what edits show."""

    def __init__(self) -> None:
        self.num_bytes = 0
        self.num_shown = 0
        self.has_fragments = False
        self._default_size = 0  # of a fragment's samples

    def read(self, file: BinaryIO, start: int, stop: int) -> None:
        track = _Track()
        for kind, a, b in _walk(file, start, stop):
            file.seek(a)
            data = file.read(min(b - a, 32))
            flags, numbers = _number(data, 0), [_number(data, at) for at in range(4, 32, 4)]
            if kind == b"trak":
                self._add(track)
                track = _Track()
            elif kind == b"cmov" and not isinstance(file, io.BytesIO):
                header = _decompressed(file, a, b)
                self.num_bytes += NO_FILE if len(header) > MAX_HEADER_BYTES else 0
                self.read(io.BytesIO(header), 0, len(header))
            elif kind == b"hdlr":
                track.is_sound |= data[8:12] == b"soun"
            elif kind == b"stts":
                track.is_even = numbers[0] == numbers[2] == 1
            elif kind == b"stsz":
                track.size = numbers[0]
                track.num_samples = numbers[1] if numbers[0] else min(numbers[1], (b - a) // 4)
            elif kind == b"elst":
                track.num_edits = min(numbers[0], (b - a) // 12)
            elif kind == b"mvex":
                self.has_fragments = True
            elif kind == b"trex":
                self._default_size = numbers[3]
            elif kind == b"tfhd" and flags & DEFAULT_SIZE:
                skipped = 2 * bool(flags & BASE) + bool(flags & DESCRIPTION) + bool(flags & DEFAULT_DURATION)
                self._default_size = numbers[1 + skipped]
            elif kind == b"trun" and not flags & (DURATIONS | SIZES | FLAGS | SHIFTS):
                self.num_bytes += numbers[0] * max(self._default_size, LEAST_BYTES)
        self._add(track)

    def _add(self, track: _Track) -> None:
        self.num_bytes += track.num_bytes
        if track.num_edits > 1:
            self.num_shown = max(self.num_shown, track.num_samples * track.num_edits)


def _walk(file: BinaryIO, start: int, stop: int, depth: int = 0) -> Iterator[Box]:
    """Yield all boxes that may list samples, with those that hold them."""
    for kind, a, b in boxes(file, start, stop):
        yield kind, a, b
        if kind in FOLDERS and depth < len(FOLDERS):
            yield from _walk(file, a, b, depth + 1)


def _decompressed(file: BinaryIO, start: int, stop: int) -> bytes:
    """The header of an old QuickTime movie; its first `MAX_HEADER_BYTES` and one more where it is longer."""
    for kind, a, b in boxes(file, start, stop):
        if kind == b"cmvd":
            file.seek(a + 4)
            try:
                return zlib.decompressobj().decompress(file.read(b - a - 4), MAX_HEADER_BYTES + 1)
            except zlib.error:
                return b""
    return b""


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")
