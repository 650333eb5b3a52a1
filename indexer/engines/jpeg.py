"""Reads the size of a JPEG image from its header, without decoding it."""

_START, _END = b"\xff\xd8\xff", b"\xff\xd9"
#: Markers of a frame header (baseline, extended, progressive), and of what must not come before one.
_FRAMES, _SCAN = (0xC0, 0xC1, 0xC2), 0xDA
#: Segments before the frame header; more are not looked at.
_MAX_SEGMENTS = 32


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG image, in pixels; None if the data does not have the form of one."""
    if not data.startswith(_START) or not data.endswith(_END):
        return None
    at = 2
    for _ in range(_MAX_SEGMENTS):
        head = data[at : at + 9]
        if len(head) < 9 or head[0] != 0xFF or head[1] == _SCAN:
            return None
        if head[1] in _FRAMES:
            return int.from_bytes(head[7:9], "big"), int.from_bytes(head[5:7], "big")
        length = int.from_bytes(head[2:4], "big")
        if length < 2:
            return None
        at += 2 + length
    return None
