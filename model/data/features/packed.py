"""Features packed into bytes, as HERO stores them in LMDB: `.npz`, `.npy` or msgpack, perhaps in LZ4.

Nothing in the bytes is executed: no pickle is read, and only numbers are unpacked.
"""

from __future__ import annotations

import io
import math
import re
import zipfile
from typing import Any

import lz4.frame
import msgpack
import numpy as np

from model.data.features.base import KEY

_LZ4_MAGIC, _ZIP_MAGIC, _NPY_MAGIC = b"\x04\x22\x4d\x18", b"PK\x03\x04", b"\x93NUMPY"
_FLOATS = re.compile(r"[<>|=]?f[248]")
#: No video has more: 100 vectors of 4352 numbers are 1.7 MB.
_MOST_BYTES = 1 << 30


def unpack_features(data: bytes) -> Any:
    """The array in some bytes, which may have any shape.

    Raises:
        ValueError: the bytes are damaged, or hold something else.
    """
    try:
        return _unpack(data)
    except ValueError:
        raise
    # The libraries raise almost anything for damaged bytes.
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _unpack(data: bytes) -> Any:
    if data.startswith(_LZ4_MAGIC):
        reader = lz4.frame.LZ4FrameDecompressor()
        data = reader.decompress(data, max_length=_MOST_BYTES)
        if not reader.eof:
            raise ValueError("its LZ4 frame is cut off, or larger than a video's features")
    if data.startswith(_NPY_MAGIC):
        return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    if data.startswith(_ZIP_MAGIC):
        # HERO's own files also hold an array `allow_pickle`.
        with zipfile.ZipFile(io.BytesIO(data)) as archive, archive.open(f"{KEY}.npy") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    return _array(msgpack.unpackb(data, raw=True, strict_map_key=False))


def _array(value: Any) -> Any:
    """The array that msgpack_numpy wrote: {nd, type, kind, shape, data}, perhaps as `features`."""
    fields = _fields(value)
    if KEY in fields:
        fields = _fields(fields[KEY])
    if fields.get("nd") is not True:
        raise ValueError(f"it holds no array {KEY!r}")
    kind = fields.get("kind", b"")
    stored = fields.get("type", b"")
    name = stored.decode("ascii", "replace") if isinstance(stored, bytes) else repr(stored)
    if kind not in (b"", None) or not _FLOATS.fullmatch(name):
        raise ValueError(f"its array is of the type {name}, not floating-point numbers")
    shape, data = fields.get("shape"), fields.get("data")
    if not isinstance(shape, list | tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ValueError("its array has no valid shape")
    dtype = np.dtype(name)
    if not isinstance(data, bytes) or len(data) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"its array of shape {list(shape)} is cut off, or too long")
    return np.frombuffer(data, dtype).reshape(shape)


def _fields(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"it holds {type(value).__name__}, not an array {KEY!r}")
    return {
        key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key): v for key, v in value.items()
    }
