"""Writes boxes into the sample entry of an MP4 file that the ffmpeg program made."""

import struct
from pathlib import Path


def insert_box(source: Path, target: Path, kind: bytes, content: bytes, track: int = 0) -> Path:
    """Add a box at the end of the first sample entry of a track; the file's `moov` must be at its end."""
    data = bytearray(source.read_bytes())
    start, stop, parents = 0, len(data), []
    for wanted in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd"):
        skip = track if wanted == b"trak" else 0
        while start < stop:
            size, name = struct.unpack_from(">I4s", data, start)
            if name == wanted and not skip:
                parents.append(start)
                start, stop = start + 8, start + size
                break
            skip -= name == wanted
            start += size
    entry = parents[-1] + 16
    end = entry + struct.unpack_from(">I", data, entry)[0]
    data[end:end] = struct.pack(">I4s", 8 + len(content), kind) + content
    for place in (*parents, entry):
        struct.pack_into(">I", data, place, struct.unpack_from(">I", data, place)[0] + 8 + len(content))
    target.write_bytes(data)
    return target


def clean_aperture(width: int, height: int, right: int = 0, down: int = 0) -> bytes:
    """The content of a `clap` box: a size, and twice the distance of its middle from the picture's."""
    return struct.pack(">4I", width, 1, height, 1) + struct.pack(">iIiI", right, 2, down, 2)
