"""Writes MP4 files of a few bytes whose tables list any number of samples."""

import struct
import zlib
from pathlib import Path

MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


def box(kind: bytes, *content: bytes) -> bytes:
    """A box."""
    body = b"".join(content)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def full(kind: bytes, *content: bytes, flags: int = 0) -> bytes:
    """A box with version 0 and flags."""
    return box(kind, struct.pack(">I", flags), *content)


def movie(
    path: Path,
    *,
    num_samples: int,
    size: int = 1,
    num_edits: int = 0,
    fragments: bool = False,
    compressed: bool = False,
    sound: bool = False,
) -> Path:
    """Write a movie of one track, which claims so many samples of one size."""
    listed = 0 if fragments else num_samples
    video = struct.pack(">H16xHHIIIH", 1, 160, 120, 0x480000, 0x480000, 0, 1) + bytes(32) + b"\0\x18\xff\xff"
    audio = struct.pack(">H8xHHHHI", 1, 1, 16, 0, 0, 22050 << 16)
    entry = box(b"ima4", bytes(6), audio) if sound else box(b"jpeg", bytes(6), video)
    tables = box(
        b"stbl",
        full(b"stsd", struct.pack(">I", 1), entry),
        full(b"stts", struct.pack(">3I", 1, listed, 1)),
        full(b"stsc", struct.pack(">4I", 1, 1, listed, 1)),
        full(b"stsz", struct.pack(">2I", 0 if fragments else size, listed)),
        full(b"stco", struct.pack(">2I", 1, 1000)),
    )
    place = box(b"dinf", full(b"dref", struct.pack(">I", 1), full(b"url ", flags=1)))
    header = full(b"smhd", bytes(4)) if sound else full(b"vmhd", bytes(8), flags=1)
    media = box(
        b"mdia",
        full(b"mdhd", struct.pack(">4I2H", 0, 0, 1000, 1000, 0x55C4, 0)),
        full(b"hdlr", struct.pack(">I4s12x", 0, b"soun" if sound else b"vide"), b"v\0"),
        box(b"minf", header, place, tables),
    )
    edits = full(b"elst", struct.pack(">I", num_edits), struct.pack(">3I", 1000, 0, 0x10000) * num_edits)
    track = box(
        b"trak",
        full(b"tkhd", struct.pack(">5I8x4H", 0, 0, 1, 0, 1000, 0, 0, 0, 0), MATRIX, bytes(8), flags=3),
        *([box(b"edts", edits)] if num_edits else []),
        media,
    )
    extends = box(b"mvex", full(b"trex", struct.pack(">5I", 1, 1, 1, size, 0))) if fragments else b""
    times = struct.pack(">4IIHH8x", 0, 0, 1000, 1000, 0x10000, 0x100, 0)
    moov = box(b"moov", full(b"mvhd", times, MATRIX, bytes(24), struct.pack(">I", 2)), track, extends)
    if compressed:
        data = struct.pack(">I", len(moov)) + zlib.compress(moov)
        moov = box(b"moov", box(b"cmov", box(b"dcom", b"zlib"), box(b"cmvd", data)))
    parts = [box(b"ftyp", b"isom", struct.pack(">I", 512), b"isomiso2mp41"), moov]
    if fragments:
        run = full(b"trun", struct.pack(">II", num_samples, 200), flags=1)
        pieces = full(b"tfhd", struct.pack(">I", 1), flags=0x20000), full(b"tfdt", bytes(4)), run
        parts.append(box(b"moof", full(b"mfhd", struct.pack(">I", 1)), box(b"traf", *pieces)))
    path.write_bytes(b"".join([*parts, box(b"mdat", bytes(100_000))]))
    return path
