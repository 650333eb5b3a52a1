"""Whether a container without a header for each track carries a video encrypted."""

import re
from pathlib import Path
from typing import BinaryIO

WINDOW_BYTES = 1 << 20
TS_PACKET_SIZES = (188, 192, 204)
# Fewer packets of a stream than these in a window say nothing.
MIN_PACKETS = 4
# Marks in the first bytes: ASF's objects for content encryption, and MXF's key of encrypted triplets.
MARKS = {
    "asf": (
        bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e"),
        bytes.fromhex("14e68a292226174cb935dae07ee9289c"),
    ),
    "mxf": (bytes.fromhex("060e2b34020401070d010301027e0100"),),
}
# The kind of a stream of H.264 whose samples are encrypted (HLS, SAMPLE-AES), in a transport stream.
SAMPLE_AES_KIND = 0xDB


def is_scrambled(path: Path, container: str, stream_id: int, stream_kind: int) -> bool:
    """Whether a stream is encrypted: most of its packets at the start or in the middle of the file say so.

    Args:
        path: the file.
        container: FFmpeg's short name of the format.
        stream_id: the stream's number in the container.
        stream_kind: the stream's kind, as a transport stream numbers it.

    Raises:
        OSError: the file cannot be read.
    """
    if container in MARKS:
        with path.open("rb") as file:
            head = file.read(WINDOW_BYTES)
        return any(mark in head for mark in MARKS[container])
    if container == "mpegts":
        counted = [_transport_packets(data, stream_id) for data in _windows(path)]
        return stream_kind == SAMPLE_AES_KIND or any(map(_most, counted))
    if container == "mpeg":
        return any(_most(_program_packets(data, stream_id & 0xFF)) for data in _windows(path))
    return False


def _most(scrambled: list[bool]) -> bool:
    return len(scrambled) >= MIN_PACKETS and 2 * sum(scrambled) > len(scrambled)


def _windows(path: Path) -> list[bytes]:
    with path.open("rb") as file:
        middle = file.seek(0, 2) // 2
        return [_window(file, at) for at in (0, middle) if at == 0 or middle > WINDOW_BYTES]


def _window(file: BinaryIO, start: int) -> bytes:
    file.seek(start)
    return file.read(WINDOW_BYTES)


def _transport_packets(data: bytes, pid: int) -> list[bool]:
    """For each packet with a payload of a stream, whether it is scrambled (ISO/IEC 13818-1, 2.4.3.2)."""
    for size in TS_PACKET_SIZES:
        for first in range(size):
            if data[first : first + 20 * size : size].strip(b"\x47") == b"" and first < len(data):
                heads = (data[at : at + 4] for at in range(first, len(data) - 3, size))
                return [
                    bool(head[3] & 0xC0)
                    for head in heads
                    if head[0] == 0x47 and head[3] & 0x10 and (head[1] & 0x1F) << 8 | head[2] == pid
                ]
    return []


def _program_packets(data: bytes, stream_id: int) -> list[bool]:
    """For each PES packet of MPEG-2 of a stream, whether it is scrambled (ISO/IEC 13818-1, 2.4.3.7)."""
    starts = re.finditer(
        b"\x00\x00\x01" + re.escape(bytes([stream_id])) + b"..([\x80-\xbf])", data, re.DOTALL
    )
    return [bool(found[1][0] & 0x30) for found in starts]
