"""Tells whether decoding can start at a key frame without any frame before it."""

import re
from collections.abc import Iterator

from av.video.stream import VideoStream

from model.runtime.video.timeline import StreamPacket

# Every key frame of these codecs is an instantaneous refresh.
REFRESHING_CODECS = ("vp8", "vp9", "av1", "gif")
# Types of the NAL units that are instantaneous refreshes; shift and mask of the type in a unit's first byte.
REFRESHING_UNITS = {"h264": (frozenset({5}), 0, 0x1F), "hevc": (frozenset({19, 20}), 1, 0x3F)}


def refreshes(packet: StreamPacket, stream: VideoStream) -> bool:
    """Whether decoding can start at a key frame, and no later frame refers to what came before it."""
    codec = stream.codec_context.codec
    if codec.intra_only or codec.canonical_name in REFRESHING_CODECS:
        return True
    if codec.canonical_name not in REFRESHING_UNITS:
        return False
    kinds, shift, mask = REFRESHING_UNITS[codec.canonical_name]
    return any((unit >> shift) & mask in kinds for unit in _unit_heads(packet, stream))


def _unit_heads(packet: StreamPacket, stream: VideoStream) -> Iterator[int]:
    """Yield the first byte of every NAL unit in a packet."""
    data, setup = bytes(packet), stream.codec_context.extradata or b""
    if not setup.startswith(b"\x01"):  # each unit follows a start code
        for code in re.finditer(b"\x00\x00\x01", data):
            yield from data[code.end() : code.end() + 1]
        return
    width = (setup[4] if stream.codec_context.codec.canonical_name == "h264" else setup[21]) % 4 + 1
    position = 0
    while position + width < len(data):
        yield data[position + width]
        position += width + int.from_bytes(data[position : position + width], "big")
