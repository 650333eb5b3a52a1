"""Receives videos into the upload folder: under a hidden name first, under their own when they are whole.

Nothing is overwritten. The hidden name is one that `reelfind index` leaves out.
"""

import hashlib
import os
import secrets
import shutil
import time
import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from indexer.library.records import content_id
from model.runtime.media_starts import EXTENSIONS
from model.runtime.messages import shorten
from service.errors import JobsOffError, NoSpaceError, QueryError, UploadTooLargeError
from service.jobs.paths import is_allowed

#: Room that an upload leaves on the disk, in bytes.
SPARED_BYTES = 512 << 20
#: Longest name of a file, in bytes of UTF-8; file systems take 255.
_MOST_NAME_BYTES = 200
_PREFIX, _SUFFIX = ".reelfind-upload-", ".part"
#: Seconds after which a part that nobody writes to is removed.
_ABANDONED_SECONDS = 24 * 3600.0
_UNSAFE = frozenset('/\\:*?"<>|')


def safe_name(name: str, pointer: str) -> str:
    """A name for a file made of the one that a client sends: its last part, without what misleads.

    Raises:
        QueryError: it is not that of a video.
    """
    last = unicodedata.normalize("NFC", name).replace("\\", "/").rpartition("/")[2]
    kept = "".join(each if each.isprintable() and each not in _UNSAFE else " " for each in last)
    # A name that begins with a dot is hidden; one that ends with a dot or a space misleads on Windows.
    kept = " ".join(kept.split()).lstrip(". ").rstrip(". ")
    stem, dot, extension = kept.rpartition(".")
    if not dot or f".{extension.lower()}" not in EXTENSIONS:
        raise QueryError(
            f"{shorten(name)} is not the name of a video. Send one that ends with .mp4, .mov, .mkv or the "
            "like.",
            pointer,
        )
    room = _MOST_NAME_BYTES - len(extension) - 1
    stem = stem.encode("utf-8", "replace")[:room].decode("utf-8", "ignore").strip(". ") or "video"
    return f"{stem}.{extension}"


def upload_folder(folder: Path | None, roots: Iterable[Path], within: Path | None) -> Path:
    """The real folder that a client's uploads go to.

    Args:
        folder: that of the settings; None: there is none.
        roots: the media folders, with links resolved.
        within: the folder that the client is limited to; None: it is not.

    Raises:
        JobsOffError: there is none, it is in no media folder, or not in the client's.
    """
    if folder is None:
        raise JobsOffError(
            "This service takes no uploads. Name a folder for them, in one of the media folders, in "
            "REELFIND_UPLOAD_FOLDER (reelfind serve --jobs --upload-folder FOLDER)."
        )
    real = Path(os.path.realpath(folder))
    if not is_allowed(real, roots, None):
        raise JobsOffError(
            "The folder in REELFIND_UPLOAD_FOLDER is in none of the media folders. Name one that is, or add "
            "it to REELFIND_MEDIA_ROOTS."
        )
    if within is None or real.is_relative_to(within):
        return real
    if within.is_relative_to(real):
        return within
    raise JobsOffError("Your key is limited to a folder that uploads do not go to.")


class PartialFile:
    """A video that arrives. `finish` gives it its name; `discard` removes it unless it has one.

    Its methods may be called from any thread, one at a time.

    Attributes:
        part_id: names it, for `reopen`.
        size: how many bytes have arrived.
    """

    def __init__(self, folder: Path, max_bytes: int, part_id: str, *, is_new: bool) -> None:
        """Open a part; see `begin` and `reopen`."""
        self._folder = folder
        self._max_bytes = max_bytes
        self._is_new = is_new
        self.part_id = part_id
        self._path = folder / f"{_PREFIX}{part_id}{_SUFFIX}"
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT | os.O_EXCL if is_new else 0)
        self._file = os.fdopen(os.open(self._path, flags, 0o640), "r+b", buffering=0)
        self.size = self._file.seek(0, os.SEEK_END)

    @classmethod
    def begin(cls, folder: Path, max_bytes: int, expected_bytes: int) -> "PartialFile":
        """Begin to receive a video into a folder, which is made if it does not exist.

        Args:
            folder: where it goes.
            max_bytes: the most that it may have.
            expected_bytes: how large it will be, as far as is known.

        Raises:
            UploadTooLargeError: it is larger than `max_bytes`.
            NoSpaceError: the disk has no room for it.
            JobsOffError: the folder cannot be written to.
        """
        if expected_bytes > max_bytes:
            raise _too_large(max_bytes)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            remove_abandoned(folder)
            free = shutil.disk_usage(folder).free
            if free - expected_bytes < SPARED_BYTES:
                raise NoSpaceError(
                    f"The video has {expected_bytes:,} bytes, and the disk has room for "
                    f"{max(0, free - SPARED_BYTES):,}. Free some space, or send a smaller one."
                )
            return cls(folder, max_bytes, secrets.token_hex(8), is_new=True)
        except OSError as error:
            raise JobsOffError(
                f"The upload folder cannot be written to: {error.strerror}. Let the user that runs the "
                "service write to it."
            ) from error

    @classmethod
    def reopen(cls, folder: Path, max_bytes: int, part_id: str) -> "PartialFile | None":
        """Go on with a part; None: there is none of that name."""
        try:
            return cls(folder, max_bytes, part_id, is_new=False)
        except OSError:
            return None

    def write(self, data: bytes) -> None:
        """Append what has arrived.

        Raises:
            UploadTooLargeError: there is too much of it.
            NoSpaceError: the disk is full.
        """
        if self.size + len(data) > self._max_bytes:
            if self._is_new:
                raise _too_large(self._max_bytes)
            raise UploadTooLargeError(
                f"The part goes beyond the {self._max_bytes:,} bytes that were said. Begin anew with the "
                "right size."
            )
        try:
            view = memoryview(data)
            while view:
                written = self._file.write(view)
                view = view[written:]
                self.size += written
        except OSError as error:
            raise NoSpaceError(
                f"The video cannot be stored ({error.strerror}): free some space on the disk."
            ) from error

    def finish(self, name: str) -> tuple[Path, str]:
        """Give the file its name, or that name with a number if there is such a file. → Path and video id.

        Raises:
            NoSpaceError: the disk is full, or cannot be read.
        """
        try:
            self._file.seek(0)
            digest = hashlib.file_digest(self._file, "sha256").hexdigest()
            os.fsync(self._file.fileno())
            path = self._take_name(name)
        except OSError as error:
            raise NoSpaceError(f"The video cannot be stored ({error.strerror}).") from error
        self._file.close()
        return path, content_id(digest)

    def _take_name(self, name: str) -> Path:
        stem, _, extension = name.rpartition(".")
        number = 1
        while True:
            path = self._folder / (name if number == 1 else f"{stem} ({number}).{extension}")
            try:
                # Not every file system has hard links, with which this would be one step.
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640))
            except FileExistsError:
                number += 1
                continue
            try:
                self._path.replace(path)
            except OSError:
                path.unlink(missing_ok=True)
                raise
            return path

    def keep(self) -> None:
        """Close the file, and leave what has arrived for `reopen`."""
        self._file.close()

    def discard(self) -> None:
        """Remove what has arrived, unless it has its name."""
        self._file.close()
        with suppress(OSError):
            self._path.unlink()


def remove_abandoned(folder: Path) -> None:
    """Remove the parts in a folder that nobody has written to for a day."""
    before = time.time() - _ABANDONED_SECONDS
    with suppress(OSError):
        for path in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
            if path.lstat().st_mtime < before:
                path.unlink()


def _too_large(max_bytes: int) -> UploadTooLargeError:
    return UploadTooLargeError(
        f"The video is larger than the limit of {max_bytes:,} bytes. Send a smaller one, or raise "
        "REELFIND_MAX_UPLOAD_BYTES."
    )
