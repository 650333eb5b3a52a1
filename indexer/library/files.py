"""Small files replaced whole, and checksums of large ones in steps."""

import hashlib
import os
from collections.abc import Generator
from pathlib import Path

from model.runtime.faults import checkpoint
from model.runtime.files import flush

_BLOCK = 1 << 22


def sha256_steps(path: Path, step_bytes: int = 1 << 28) -> Generator[None, None, str]:
    """SHA-256 of a file in hex; yields now and then, to show that the work goes on."""
    digest = hashlib.sha256()
    read = 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            read += len(block)
            if read >= step_bytes:
                read = 0
                yield
    return digest.hexdigest()


def replace_text(path: Path, text: str, step: str) -> None:
    """Replace a small file so that a reader sees the old text or the new, whatever happens.

    `step` names the fault points around the write, see `model.runtime.faults`.
    """
    beside = path.with_name(f".{path.name}.new")
    checkpoint(f"{step}.write")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        checkpoint(f"{step}.fsync")
        os.fsync(file.fileno())
    checkpoint(f"{step}.rename")
    beside.replace(path)
    checkpoint(f"{step}.renamed")
    flush(path.parent)
