"""Deletes the files of a video."""

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from indexer.library.records import FileRecord, VideoRecord, displayable
from service.api.media import open_place
from service.api.remote_media import RemoteFile
from service.errors import MediaGoneError, MediaNotAllowedError
from service.rights.folders import Folder


@dataclass(frozen=True)
class _Entry:
    """The name of a file in a folder that is held open, and the device and inode of the file."""

    folder: int
    name: bytes
    file: tuple[int, int]
    shown: str


class DeletableMedia:
    """The files of a video in all places where there is one; each may be played, and is no link.

    What is deleted are the files that were looked at: their folders are held open, and a name must still lead
    to its file.

    Raises:
        MediaNotAllowedError: one of them lies outside of the media folders, is no video, or is a link.
        MediaChangedError: one of them is not the file that was indexed.
        MediaGoneError: there is none any more.
    """

    def __init__(self, video: VideoRecord, folders: frozenset[Path], within: Folder | None = None) -> None:
        self._video = video
        self._entries: list[_Entry] = []
        gone: MediaGoneError | None = None
        with ExitStack() as stack:
            for place in video.files:
                try:
                    self._entries.append(_look_at(video, place, folders, within, stack))
                except MediaGoneError as error:
                    gone = gone or error
            if not self._entries:
                raise gone or MediaGoneError(f"Video {video.video_id} has no file.")
            self._held = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    def delete(self) -> None:
        """Delete them.

        Raises:
            MediaNotAllowedError: one could not be deleted; all others are.
        """
        failures = [failure for entry in self._entries if (failure := _delete(entry)) is not None]
        if failures:
            raise MediaNotAllowedError(
                f"Video {self._video.video_id} is removed from the library, but not all of its files could "
                f"be deleted: {'; '.join(failures)}. Delete them by hand."
            )


def _look_at(
    video: VideoRecord,
    place: FileRecord,
    folders: frozenset[Path],
    within: Folder | None,
    stack: ExitStack,
) -> _Entry:
    """A file that may be deleted. Its folder is open as long as `stack` is."""
    media = open_place(video, place, folders, within)
    stack.callback(media.file.close)
    shown = displayable(place.path)
    if isinstance(media.file, RemoteFile):
        raise MediaNotAllowedError(
            f"The file of video {video.video_id}, {shown}, is in an object store or on a web server, where "
            "nothing is deleted over HTTP. Delete it there, or leave `media` out."
        )
    if place.path.is_symlink():
        raise MediaNotAllowedError(
            f"The file of video {video.video_id}, {shown}, is a link, which is not deleted over HTTP. Leave "
            "`media` out."
        )
    real = Path(f"/proc/self/fd/{media.file.fileno()}").readlink()
    folder = os.open(real.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, folder)
    return _Entry(folder, os.fsencode(real.name), (media.status.st_dev, media.status.st_ino), shown)


def _delete(entry: _Entry) -> str | None:
    """Delete a file; why it could not be, or None."""
    try:
        found = os.stat(entry.name, dir_fd=entry.folder, follow_symlinks=False)
        if (found.st_dev, found.st_ino) != entry.file:
            return f"{entry.shown}: another file took its place"
        os.unlink(entry.name, dir_fd=entry.folder)
    except OSError as error:
        return f"{entry.shown}: {error.strerror or error}"
    return None
