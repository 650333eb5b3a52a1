"""Finds the pieces of a container, and where their sizes are written, so that damage can aim at them.

These readers are for good files, the seeds, and know only as much of each format as that takes.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

Order = Literal["big", "little"]


@dataclass(frozen=True)
class Element:
    """A piece of a container: a box, an element, a chunk, a packet, a page or a tag.

    Attributes:
        start: the place of its first byte.
        content: the place after its head.
        end: the place after its last byte.
        size_field: the place and the number of bytes of its size; None where it has none.
        order: which byte of the size comes first.
    """

    start: int
    content: int
    end: int
    size_field: tuple[int, int] | None = None
    order: Order = "big"


Reader = Callable[[bytes], Iterator[Element]]

_BOX_PARENTS = frozenset(
    b"moov trak mdia minf stbl edts dinf moof traf mvex udta stsd meta avc1 hvc1 mp4v av01 vp09 jpeg apcn "
    b"png rle s263 wave mp4a".split()
)
_BOX_SKIPS = {b"stsd": 8, b"meta": 4, b"mp4a": 28}
_SAMPLE_ENTRY = 78
_PLAIN_PARENTS = frozenset(b"moov trak mdia minf stbl edts dinf moof traf mvex udta wave".split())
_EBML_PARENTS = frozenset(
    bytes.fromhex(number)
    for number in [
        "18538067",
        "114d9b74",
        "4dbb",
        "1549a966",
        "1654ae6b",
        "ae",
        "e0",
        "e1",
        "1c53bb6b",
        "bb",
        "b7",
        "1f43b675",
        "a0",
        "75a1",
        "a6",
        "1254c367",
        "7373",
        "67c8",
        "63c0",
        "6d80",
        "6240",
        "55b0",
    ]
)


def elements(name: str, data: bytes) -> list[Element]:
    """The pieces of a seed with this file name; those inside a piece follow it. Never none."""
    reader = _READERS[name.rpartition(".")[2]]
    whole = (piece for piece in reader(data) if piece.start < piece.end <= len(data))
    found = [replace(piece, content=min(piece.content, piece.end)) for piece in whole]
    return found or list(_slices(data))


def _boxes(data: bytes) -> Iterator[Element]:
    yield from _boxes_between(data, 0, len(data))


def _boxes_between(data: bytes, start: int, stop: int) -> Iterator[Element]:
    while start + 8 <= stop:
        size, kind = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8]
        end = start + size
        if size < 8 or end > stop:
            return
        yield Element(start, start + 8, end, (start, 4))
        if kind in _BOX_PARENTS:
            usual = 0 if kind in _PLAIN_PARENTS else _SAMPLE_ENTRY
            yield from _boxes_between(data, start + 8 + _BOX_SKIPS.get(kind, usual), end)
        start = end


def _ebml(data: bytes) -> Iterator[Element]:
    yield from _ebml_between(data, 0, len(data))


def _ebml_between(data: bytes, start: int, stop: int) -> Iterator[Element]:
    while start + 2 <= stop and data[start]:
        width = 9 - data[start].bit_length()
        at = start + width
        if at >= stop or not data[at]:
            return
        length = 9 - data[at].bit_length()
        size = int.from_bytes(data[at : at + length], "big") & ((1 << 7 * length) - 1)
        unknown = size == (1 << 7 * length) - 1
        end = stop if unknown else at + length + size
        if end > stop:
            return
        yield Element(start, at + length, end, (at, length))
        if data[start:at] in _EBML_PARENTS:
            yield from _ebml_between(data, at + length, end)
        start = end


def _riff(data: bytes) -> Iterator[Element]:
    yield from _riff_between(data, 0, len(data))


def _riff_between(data: bytes, start: int, stop: int) -> Iterator[Element]:
    while start + 8 <= stop:
        size = int.from_bytes(data[start + 4 : start + 8], "little")
        end = min(start + 8 + size + size % 2, stop)
        yield Element(start, start + 8, end, (start + 4, 4), "little")
        if data[start : start + 4] in (b"RIFF", b"LIST"):
            yield from _riff_between(data, start + 12, end)
        start = end


def _transport(data: bytes) -> Iterator[Element]:
    before = 4 if data[4:5] == b"\x47" and data[:1] != b"\x47" else 0
    for start in range(0, len(data), 188 + before):
        head = start + before
        size_field = (head + 4, 1) if data[head + 3 : head + 4] and data[head + 3] & 0x20 else None
        yield Element(start, head + 4, start + before + 188, size_field)
        payload = head + 4 + (1 + data[head + 4] if size_field else 0)
        if data[payload : payload + 3] == b"\x00\x00\x01":
            yield Element(payload, payload + 9, start + before + 188, (payload + 4, 2))


def _program(data: bytes) -> Iterator[Element]:
    places = [found.start() for found in re.finditer(rb"\x00\x00\x01[\xb9-\xff]", data)]
    for start, end in zip(places, [*places[1:], len(data)], strict=True):
        has_size = data[start + 3] >= 0xBB
        yield Element(start, start + 6 if has_size else start + 4, end, (start + 4, 2) if has_size else None)


def _pages(data: bytes) -> Iterator[Element]:
    places = [found.start() for found in re.finditer(b"OggS", data)]
    for start, end in zip(places, [*places[1:], len(data)], strict=True):
        yield Element(start, start + 27 + data[start + 26], end, (start + 26, 1))


def _flv(data: bytes) -> Iterator[Element]:
    yield Element(0, 9, 13, (5, 4))
    start = 13
    while start + 15 <= len(data):
        end = start + 15 + int.from_bytes(data[start + 1 : start + 4], "big")
        yield Element(start, start + 11, end, (start + 1, 3))
        start = end


def _gif(data: bytes) -> Iterator[Element]:
    start = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    yield Element(0, 13, start)
    while start < len(data):
        first = start + 2
        if data[start] == 0x2C:
            flags = data[start + 9]
            first = start + 11 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
        elif data[start] != 0x21:
            return
        end = first
        while end < len(data) and data[end]:
            end += 1 + data[end]
        yield Element(start, first + 1, end + 1, (first, 1))
        start = end + 1


def _asf(data: bytes) -> Iterator[Element]:
    yield from _asf_between(data, 0, len(data))


def _asf_between(data: bytes, start: int, stop: int) -> Iterator[Element]:
    while start + 24 <= stop:
        size = int.from_bytes(data[start + 16 : start + 24], "little")
        end = start + size
        if size < 24 or end > stop:
            return
        yield Element(start, start + 24, end, (start + 16, 8), "little")
        if start == 0:
            yield from _asf_between(data, 30, end)
        start = end


def _klv(data: bytes) -> Iterator[Element]:
    start = 0
    while start + 17 <= len(data):
        first = data[start + 16]
        width = 1 + (first & 0x7F if first & 0x80 else 0)
        size = int.from_bytes(data[start + 17 : start + 16 + width], "big") if width > 1 else first
        content = start + 16 + width
        yield Element(start, content, content + size, (start + 16, width))
        start = content + size


def _nut(data: bytes) -> Iterator[Element]:
    places = [found.start() for found in re.finditer(rb"N[MSKXI][\x00-\xff]{6}", data)]
    for start, end in zip(places, [*places[1:], len(data)], strict=True):
        yield Element(start, start + 9, end, (start + 8, 1))


def _units(data: bytes) -> Iterator[Element]:
    places = [found.start() for found in re.finditer(rb"\x00\x00\x01", data)]
    for start, end in zip(places, [*places[1:], len(data)], strict=True):
        yield Element(start, start + 4, end)


def _pictures(data: bytes) -> Iterator[Element]:
    places = [found.start() for found in re.finditer(b"\xff[\xc0-\xfe]", data)]
    for start, end in zip(places, [*places[1:], len(data)], strict=True):
        yield Element(start, start + 4, end, (start + 2, 2))


def _ivf(data: bytes) -> Iterator[Element]:
    yield Element(0, 6, 32, (6, 2), "little")
    start = 32
    while start + 12 <= len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "little")
        yield Element(start, start + 12, end, (start, 4), "little")
        start = end


def _real(data: bytes) -> Iterator[Element]:
    start = 0
    while start + 10 <= len(data):
        size = int.from_bytes(data[start + 4 : start + 8], "big")
        yield Element(start, start + 10, min(start + max(size, 10), len(data)), (start + 4, 4))
        start += max(size, 10)


def _slices(data: bytes) -> Iterator[Element]:
    step = max(1, len(data) // 16)
    for start in range(0, len(data), step):
        yield Element(start, start, min(start + step, len(data)))


_READERS: dict[str, Reader] = {
    **dict.fromkeys(("mp4", "mov", "m4v", "3gp"), _boxes),
    **dict.fromkeys(("mkv", "webm"), _ebml),
    **dict.fromkeys(("ts", "m2ts"), _transport),
    **dict.fromkeys(("vob", "mpg"), _program),
    **dict.fromkeys(("wmv", "asf"), _asf),
    **dict.fromkeys(("h264", "hevc", "m2v"), _units),
    "avi": _riff,
    "ogv": _pages,
    "flv": _flv,
    "gif": _gif,
    "mxf": _klv,
    "nut": _nut,
    "mjpeg": _pictures,
    "ivf": _ivf,
    "rm": _real,
    "y4m": _slices,
}
