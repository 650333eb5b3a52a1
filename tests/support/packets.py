"""Muxes packets of a test's own making."""

import io
import re
import struct
import zlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
from PIL import Image

#: Codec and pixel format of the pictures that Pillow writes.
CODECS = {"PNG": ("png", "rgb24"), "JPEG": ("mjpeg", "yuvj420p"), "TIFF": ("tiff", "rgb24")}


def picture(
    kind: str, size: tuple[int, int], colour: tuple[int, int, int] | int, orientation: int = 0
) -> bytes:
    """A picture of one colour or grey as a file of Pillow's `kind`; with an orientation, it has EXIF."""
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("L" if isinstance(colour, int) else "RGB", size, colour).save(
        file, kind, **({"exif": exif} if orientation else {})
    )
    return file.getvalue()


def grey_png(width: int, height: int) -> bytes:
    """A black picture with a byte for each pixel."""
    deflate = zlib.compressobj(1)
    row = bytes(1 + width)
    data = b"".join(deflate.compress(row) for _ in range(height)) + deflate.flush()
    header = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def h264_of_size(stream: bytes, width: int, height: int) -> bytes:
    """A raw stream of H.264 whose headers say another size, in multiples of 16."""
    sizes = (width // 16 - 1, height // 16 - 1)
    # ISO/IEC 14496-10, 7.3.2.1: the fields from seq_parameter_set_id on.
    bits = "".join(map(_exp_golomb, (0, 0, 2, 1))) + "0" + "".join(map(_exp_golomb, sizes)) + "11001"
    bits += "0" * (-len(bits) % 8)
    body = bytes((0x67, 66, 0, 51)) + int(bits, 2).to_bytes(len(bits) // 8, "big")
    escaped = re.sub(rb"\x00\x00(?=[\x00-\x03])", b"\x00\x00\x03", body)
    return re.sub(rb"(?s)\x00\x00\x01\x67.*?(?=\x00\x00)", lambda _: b"\x00\x00\x01" + escaped, stream)


def _exp_golomb(number: int) -> str:
    bits = f"{number + 1:b}"
    return "0" * (len(bits) - 1) + bits


def mux_pictures(path: Path, kind: str, pictures: Sequence[bytes], seconds: Fraction = Fraction(1)) -> Path:
    """Write pictures as the frames of a video of 160x120, each shown for so long."""
    codec, pixel_format = CODECS[kind]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=1 / seconds)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 160, 120, pixel_format
        for number, data in enumerate(pictures):
            packet = av.Packet(data)
            packet.stream, packet.time_base = stream, seconds
            packet.pts = packet.dts = number
            packet.duration, packet.is_keyframe = 1, True
            container.mux(packet)
    return path
