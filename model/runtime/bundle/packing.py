"""Packed graphs: gzip files, as any program unpacks them, made for weights of few bits.

Coarse codes hold no repetitions worth finding. So each byte is packed by how often its value occurs (Huffman
codes alone), which is also faster.
"""

from __future__ import annotations

import zlib
from pathlib import Path

from model.runtime.errors import BundleError

#: Bytes in a byte of a packed file, at most: each takes a bit or more. So no small file asks for much memory.
MOST_UNPACKED = 8
_SUFFIX = ".gz"
# What zlib calls a gzip file, with its largest tables.
_GZIP, _MEMORY = 16 + zlib.MAX_WBITS, 9


def packed_name(graph: str) -> str:
    """The name of the file that holds a packed graph."""
    return graph + _SUFFIX


def packed(content: bytes) -> bytes:
    """A gzip file with this content; the same one for the same content."""
    packer = zlib.compressobj(9, zlib.DEFLATED, _GZIP, _MEMORY, zlib.Z_HUFFMAN_ONLY)
    return packer.compress(content) + packer.flush()


def unpack(path: Path, size: int) -> bytes:
    """The content of a gzip file.

    Args:
        path: the file.
        size: the bytes that it must hold: nothing is unpacked beyond them.

    Raises:
        BundleError: the file cannot be read, is no gzip file, or holds more or less.
    """
    unpacker = zlib.decompressobj(_GZIP)
    try:
        # One byte more than expected shows that there are more.
        content = unpacker.decompress(path.read_bytes(), size + 1)
    except (OSError, zlib.error) as error:
        raise BundleError(
            f"{path} cannot be unpacked ({error}): export or download the bundle again"
        ) from error
    if len(content) != size or not unpacker.eof:
        raise BundleError(
            f"{path} does not hold the {size} bytes that bundle.json says: export or download the bundle "
            "again"
        )
    return content
