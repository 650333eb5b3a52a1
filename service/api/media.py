"""Serving media files: which may be served, whether the client's copy is current, and which byte range."""

import os
import re
import stat
from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from pathlib import Path

from starlette.datastructures import Headers

from indexer.library.records import VideoRecord
from service.errors import MediaGoneError, NotFoundError

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
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)


class RangeError(Exception):
    """A byte range lies outside a file of `size` bytes."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


def media_type(path: Path) -> str:
    """The content type of a video file, by its suffix."""
    return _TYPES.get(path.suffix.lower(), "application/octet-stream")


def locate(video: VideoRecord, roots: Iterable[Path]) -> tuple[Path, os.stat_result]:
    """The path of a video's file, with links resolved, and the file's status.

    Raises:
        NotFoundError: links lead out of the media folders that were indexed.
        MediaGoneError: the file is missing or cannot be read.
    """
    remedy = "Put it back, or run `reelfind index --prune` to remove it from the library."
    try:
        real = video.file.resolve(strict=True)
        status = real.stat()
        readable = stat.S_ISREG(status.st_mode) and os.access(real, os.R_OK)
    except (OSError, RuntimeError):
        raise MediaGoneError(
            f"The file of video {video.video_id}, {video.path}, is missing. {remedy}"
        ) from None
    if not any(real.is_relative_to(root.resolve()) for root in roots):
        raise NotFoundError(
            f"The file of video {video.video_id} is a link out of the library's media folders, so it is not "
            "served. Index the folder that it leads to."
        )
    if not readable:
        raise MediaGoneError(f"The file of video {video.video_id}, {video.path}, cannot be read. {remedy}")
    return real, status


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


def wants_range(request: Headers, size: int, etag: str, modified: str) -> bool:
    """Whether to answer with the one byte range that the request names.

    A header that is malformed, has other units, names several ranges or is for another version of the file is
    ignored, as RFC 9110 allows: the answer is then the whole file.

    Raises:
        RangeError: the range lies outside the file.
    """
    match = _RANGE.fullmatch(request.get("range", "").strip())
    if match is None or request.get("if-range", etag) not in (etag, modified):
        return False
    first, last = match.groups()
    if not first:
        if not last:
            return False
        if int(last) == 0 or size == 0:
            raise RangeError(size)
        return True
    if last and int(last) < int(first):
        return False
    if int(first) >= size:
        raise RangeError(size)
    return True
