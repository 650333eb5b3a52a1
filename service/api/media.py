"""Media files: which may be played, opening them, whether the client's copy is current, and byte ranges.

A file is opened once, and everything is found out from what was opened: what it is, where it is, and whether
it is the file that was indexed. A name can lead to another file at any moment, an open file cannot.
"""

import io
import os
import re
import shlex
import stat
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import quote

from starlette.datastructures import Headers

from indexer.library.records import FileRecord, VideoRecord, displayable, stored_ns
from indexer.library.trust import remembered_media_roots
from model.runtime.media_starts import AMBIGUOUS, EXTENSIONS, START_BYTES, begins_as_text, begins_as_video
from model.runtime.remote.path import RemotePath, real_path
from service.api.remote_media import RemoteFile
from service.errors import MediaChangedError, MediaGoneError, MediaNotAllowedError
from service.rights.folders import Folder
from service.settings import Settings

# Our own table of content types: the operating system's differs from machine to machine.
_TYPES = {
    ".3gp": "video/3gpp",
    ".avi": "video/x-msvideo",
    ".flv": "video/x-flv",
    ".gif": "image/gif",
    ".m2ts": "video/mp2t",
    ".m4v": "video/mp4",
    ".mkv": "video/x-matroska",
    ".mov": "video/quicktime",
    ".mp4": "video/mp4",
    ".mpeg": "video/mpeg",
    ".mpg": "video/mpeg",
    ".mts": "video/mp2t",
    ".ogv": "video/ogg",
    ".ts": "video/mp2t",
    ".webm": "video/webm",
    ".wmv": "video/x-ms-wmv",
}
_REMEDY = "Put it back, or index its folder again with `--prune` to remove it from the library."
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)


class ByteRange(NamedTuple):
    """The bytes from `start` to `stop`, which is not one of them."""

    start: int
    stop: int


class RangeError(Exception):
    """A byte range lies outside a file of `size` bytes."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


def media_type(path: Path) -> str:
    """The content type of a video file, by its suffix."""
    return _TYPES.get(path.suffix.lower(), "application/octet-stream")


class MediaFolders:
    """The folders whose videos may be played: those of the settings, else those that the user has indexed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def current(self) -> frozenset[Path]:
        """The folders, with links resolved. Folders that were indexed meanwhile count at once."""
        if self._settings.media_roots:
            return frozenset(map(real_path, self._settings.media_roots))
        return frozenset(remembered_media_roots(self._settings.library))


@dataclass(frozen=True)
class MediaFile:
    """An open file of a video, and the place where it is. Whoever has it closes `file`."""

    path: Path
    file: io.FileIO | RemoteFile
    status: os.stat_result

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return self.status.st_size

    @property
    def etag(self) -> str:
        """Differs when the file was written again."""
        return f'"{self.status.st_mtime_ns:x}-{self.status.st_size:x}"'

    @property
    def modified(self) -> str:
        """When it was modified, as HTTP writes it."""
        return formatdate(self.status.st_mtime, usegmt=True)


def open_media(video: VideoRecord, folders: frozenset[Path], within: Folder | None = None) -> MediaFile:
    """Open a file of a video: the first of its places where it may be played and is what was indexed.

    Links are followed; what counts is where the file itself lies. A hard link is the file: making one needs
    the right to write into the folder.

    Args:
        video: the video's record.
        folders: real paths; the file must lie in or below one of them.
        within: the folder that whoever asks is limited to: the file must lie in it too; None: they are not.

    Raises:
        MediaNotAllowedError: the file in its first place lies outside of the folders, or is no video.
        MediaChangedError: it is not the file that was indexed: its size or its time differ.
        MediaGoneError: it is missing, cannot be read, or is no regular file.
    """
    first_error: MediaNotAllowedError | MediaChangedError | MediaGoneError | None = None
    for place in video.files:
        try:
            return open_place(video, place, folders, within)
        except (MediaNotAllowedError, MediaChangedError, MediaGoneError) as error:
            first_error = first_error or error
    raise first_error or MediaGoneError(f"Video {video.video_id} has no file.")


def open_place(
    video: VideoRecord, place: FileRecord, folders: frozenset[Path], within: Folder | None = None
) -> MediaFile:
    """Open the file of a video in one of its places. For the rest, see `open_media`."""
    if isinstance(place.path, RemotePath):
        return _open_remote(video, place, place.path, folders, within)
    which, remedy = _which(video, place), _REMEDY
    try:
        # Nothing is read, and no pipe or device opened, before it is known what and where it is.
        handle = os.open(place.path, os.O_PATH | os.O_CLOEXEC)
    except (OSError, ValueError):
        raise MediaGoneError(f"{which} is missing. {remedy}") from None
    try:
        real = Path(f"/proc/self/fd/{handle}").readlink()
        if not folders.intersection(real.parents) or not (within is None or within.holds(real)):
            raise _outside(video, place, real, folders)
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise MediaGoneError(f"{which} cannot be read: it is no file any more. {remedy}")
        _check_unchanged(video, place, status)
        try:
            file = io.FileIO(os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            raise MediaGoneError(f"{which} cannot be read. Check its permissions.") from None
    finally:
        os.close(handle)
    _check_is_video(video, place, file, real)
    return MediaFile(place.path, file, status)


def _open_remote(
    video: VideoRecord,
    place: FileRecord,
    path: RemotePath,
    folders: frozenset[Path],
    within: Folder | None,
) -> MediaFile:
    if not folders.intersection(path.parents) or not (within is None or within.holds(path)):
        raise _outside(video, place, path, folders)
    try:
        file = RemoteFile(path)
        _check_unchanged(video, place, file.status)
        _check_is_video(video, place, file, path)
    except FileNotFoundError:
        raise MediaGoneError(f"{_which(video, place)} is missing. {_REMEDY}") from None
    except OSError as error:
        raise MediaGoneError(f"{_which(video, place)} cannot be read: {error.strerror}.") from None
    return MediaFile(path, file, file.status)


def _which(video: VideoRecord, place: FileRecord) -> str:
    return f"The file of video {video.video_id}, {displayable(place.path)},"


def _check_unchanged(video: VideoRecord, place: FileRecord, status: os.stat_result) -> None:
    if (status.st_size, stored_ns(status.st_mtime_ns)) != (video.bytes, place.mtime_ns):
        raise MediaChangedError(
            f"{_which(video, place)} has changed since it was indexed. Run `reelfind index` again on its "
            "folder."
        )


def _check_is_video(video: VideoRecord, place: FileRecord, file: io.FileIO | RemoteFile, path: Path) -> None:
    """Close a file that is no video, and raise MediaNotAllowedError."""
    try:
        if _is_video(file, path):
            return
    except BaseException:
        file.close()
        raise
    file.close()
    raise MediaNotAllowedError(f"{_which(video, place)} is not a video.")


def read_at(file: io.FileIO | RemoteFile, count: int, start: int) -> bytes:
    """The bytes of a file from `start` on: `count`, or fewer. OSError where they cannot be read."""
    return file.pread(count, start) if isinstance(file, RemoteFile) else os.pread(file.fileno(), count, start)


def _outside(
    video: VideoRecord, place: FileRecord, real: Path, folders: frozenset[Path]
) -> MediaNotAllowedError:
    which = _which(video, place)
    if folders and real != place.path:
        # Not where it leads: that is nothing for those who may ask.
        return MediaNotAllowedError(
            f"{which} is reached through a link out of the media folders, so it is not played. Start the "
            "service with `--media` for the folder that the link leads to as well."
        )
    folder = shlex.quote(displayable(place.path.parent))
    named = (
        "of the media folders" if folders else "of any folder that is known as one of this library's videos"
    )
    return MediaNotAllowedError(
        f"{which} lies outside {named}, so it is not played. If it may be, start the service with "
        f"`reelfind serve --media {folder}`, or set REELFIND_MEDIA_ROOTS."
    )


def _is_video(file: io.FileIO | RemoteFile, real: Path) -> bool:
    """Whether a file has the name or the beginning of a video. Text never has."""
    start = read_at(file, START_BYTES, 0)
    extension = real.suffix.lower()
    has_name = extension in EXTENSIONS and extension not in AMBIGUOUS
    return begins_as_video(start) or (has_name and not (start and begins_as_text(start)))


def content_disposition(name: str, how: Literal["inline", "attachment"] = "inline") -> str:
    """The header that lets a browser show a file, or at once save it, under its name, which may be any."""
    quoted = quote(name)
    return f"{how}; filename*=utf-8''{quoted}" if quoted != name else f'{how}; filename="{name}"'


def is_fresh(request: Headers, etag: str, modified: str | None = None) -> bool:
    """Whether the client's copy is up to date, so that the answer is 304 (RFC 9110, section 13.1)."""
    condition = request.get("if-none-match")
    if condition is not None:
        etags = [part.strip().removeprefix("W/") for part in condition.split(",")]
        return "*" in etags or etag in etags
    since = request.get("if-modified-since")
    if since is None or modified is None:
        return False
    try:
        return parsedate_to_datetime(modified) <= parsedate_to_datetime(since)
    except (TypeError, ValueError):
        return False


def byte_range(request: Headers, size: int, etag: str, modified: str) -> ByteRange | None:
    """The one byte range that a request names; None: the answer is the whole file.

    A header that is malformed, has other units, names several ranges or is for another version of the file is
    ignored, as RFC 9110 allows.

    Raises:
        RangeError: the range lies outside the file.
    """
    match = _RANGE.fullmatch(request.get("range", "").strip())
    if match is None or request.get("if-range", etag) not in (etag, modified):
        return None
    first, last = match.groups()
    if not first:
        if not last:
            return None
        if int(last) == 0 or size == 0:
            raise RangeError(size)
        return ByteRange(max(0, size - int(last)), size)
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        raise RangeError(size)
    return ByteRange(int(first), min(size, int(last) + 1) if last else size)
