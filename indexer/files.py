"""Files that survive a power cut: flushing, atomic replacement and checksums."""

import hashlib
import os
from collections.abc import Generator
from pathlib import Path

from indexer.faults import checkpoint

_BLOCK = 1 << 22


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_steps(path: Path, step_bytes: int = 1 << 28) -> Generator[None, None, str]:
    """Like `sha256_of`, but yields now and then, to show that the work goes on; returns the digest."""
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


def flush(path: Path) -> None:
    """Force a file's or a folder's content to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_text(path: Path, text: str, step: str) -> None:
    """Replace a small file so that a reader sees the old text or the new, whatever happens.

    `step` names the fault points around the write, see `indexer.faults`.
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
