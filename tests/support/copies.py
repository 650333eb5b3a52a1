"""Copies of videos whose content differs, so that each is a video of its own, with the same pictures."""

import os
import struct
from pathlib import Path


def distinct_copy(source: Path, target: Path) -> Path:
    """Copy an MP4 file to a file or into a folder, and add a box that players skip: it holds the new name."""
    target = target / source.name if target.is_dir() else target
    name = os.fsencode(target.name)
    box = struct.pack(">I4s", 8 + len(name), b"free") + name
    target.write_bytes(source.read_bytes() + box)
    return target
