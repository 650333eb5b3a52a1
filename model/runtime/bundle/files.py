"""Finds and reads a bundle's files, and checks their checksums."""

from __future__ import annotations

from pathlib import Path

from model.runtime.bundle.manifest import MANIFEST_NAME, FileRecord
from model.runtime.errors import BundleError
from model.runtime.files import sha256_of

EXPORT_AGAIN = "export or download the bundle again"

#: Inode, size and modification time: they differ once the file is written again.
FileState = tuple[int, int, int]


def default_bundle_path() -> Path:
    """The small bundle that is installed with the package."""
    return Path(__file__).resolve().parents[2] / "bundles" / "mini"


def aside_path(folder: Path) -> Path:
    """Where the old bundle is moved while a new one replaces it."""
    return folder.with_name(f".{folder.name}.replaced")


def read_bundle_manifest(folder: Path) -> bytes:
    """The bytes of `bundle.json`.

    Raises:
        BundleError: the file is missing or cannot be read.
    """
    path = folder / MANIFEST_NAME
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        aside = aside_path(folder)
        remedy = "name the folder of a bundle, or make one with `reelfind-model export`"
        if not folder.exists() and aside.is_dir():
            remedy = f"its replacement was interrupted: rename {aside} to {folder.name}"
        raise BundleError(f"{path} does not exist: {remedy}") from error
    except OSError as error:
        raise BundleError(
            f"{path} cannot be read ({error.strerror}): check the path and its permissions"
        ) from error


def verify_file(path: Path, record: FileRecord) -> FileState:
    """Check a file's size and checksum against its record.

    Returns:
        The file's state before it was read, to compare with `file_state` later.

    Raises:
        BundleError: the file is missing, cannot be read, or differs from its record.
    """
    try:
        state = file_state(path)
        size = path.stat().st_size
        if size != record.bytes:
            raise BundleError(f"{path} has {size} bytes instead of {record.bytes}: {EXPORT_AGAIN}")
        digest = sha256_of(path)
    except FileNotFoundError as error:
        raise BundleError(f"{path} does not exist, but {MANIFEST_NAME} lists it: {EXPORT_AGAIN}") from error
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}): check its permissions") from error
    if digest != record.sha256:
        raise BundleError(
            f"{path} has the sha256 {digest[:12]}… instead of {record.sha256[:12]}…: {EXPORT_AGAIN}"
        )
    return state


def file_state(path: Path) -> FileState:
    """A file's state: it changes when the file is written."""
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
