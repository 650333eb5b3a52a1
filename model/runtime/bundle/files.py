"""A bundle's files: found, read, and checked against their checksums."""

from __future__ import annotations

from pathlib import Path

from model.runtime.bundle.manifest import MANIFEST_NAME, FileRecord
from model.runtime.errors import BundleError
from model.runtime.files import sha256_of

AGAIN = "export or download the bundle again"

#: inode, size and time of change: another state, another file
FileState = tuple[int, int, int]


def default_bundle_path() -> Path:
    """The small bundle that is installed with the package."""
    return Path(__file__).resolve().parents[2] / "bundles" / "mini"


def aside_path(folder: Path) -> Path:
    """Where the old bundle stands for the moment in which a new one takes its place."""
    return folder.with_name(f".{folder.name}.replaced")


def read_manifest(folder: Path) -> bytes:
    """The bytes of `bundle.json`.

    Raises:
        BundleError: it is missing or cannot be read.
    """
    path = folder / MANIFEST_NAME
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        aside = aside_path(folder)
        remedy = "give the folder of a bundle, or make one with `reelfind-model export`"
        if not folder.exists() and aside.is_dir():
            remedy = f"it was being replaced when that was interrupted: rename {aside} to {folder.name}"
        raise BundleError(f"{path} does not exist: {remedy}") from error
    except OSError as error:
        raise BundleError(
            f"{path} cannot be read ({error.strerror}): check the path and its permissions"
        ) from error


def verify_file(path: Path, record: FileRecord) -> FileState:
    """Check one file against its record, to the byte.

    Returns:
        the file's state before it was read, for `file_state` to be compared with later.

    Raises:
        BundleError: it is missing, cannot be read, or has another content.
    """
    try:
        state = file_state(path)
        size = path.stat().st_size
        if size != record.bytes:
            raise BundleError(f"{path} has {size} bytes instead of {record.bytes}: {AGAIN}")
        digest = sha256_of(path)
    except FileNotFoundError as error:
        raise BundleError(f"{path} does not exist, but {MANIFEST_NAME} lists it: {AGAIN}") from error
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}): check its permissions") from error
    if digest != record.sha256:
        raise BundleError(f"{path} has the sha256 {digest[:12]}… instead of {record.sha256[:12]}…: {AGAIN}")
    return state


def file_state(path: Path) -> FileState:
    """What tells whether a file was written since."""
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
