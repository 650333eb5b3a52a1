"""Finds the files of videos by the names in annotation files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from model.data.datasets.records import Annotated, CaptionedVideo, Split
from model.progress import Report, silent
from model.runtime.errors import InputError
from model.runtime.names import as_seen

VIDEO_EXTENSIONS = (".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".3gp", ".mpg", ".flv", ".wmv")
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")
_NAMED = 5


class MissingFilesError(InputError):
    """The folder lacks files that the annotations name."""


def plain_names(video_id: str) -> tuple[str, ...]:
    """The names that a video may have in other files: its own, and that without a video's extension."""
    stem, dot, extension = video_id.rpartition(".")
    if dot and f".{extension.lower()}" in VIDEO_EXTENSIONS:
        return video_id, stem
    return (video_id,)


class MediaFolder:
    """The video or image files in a folder and below, found by name with or without extension.

    Args:
        path: the folder.
        extensions: those of the files to find, such as ".mp4".
        setting: the setting that names the folder, for messages.

    Raises:
        InputError: there is no such folder.
    """

    def __init__(self, path: Path, extensions: Sequence[str], setting: str = "data.videos") -> None:
        if not path.is_dir():
            raise InputError(f"{setting}={path} is not a folder: set it to the folder that holds the files")
        self.path, self.extensions = path, tuple(extensions)
        self._exact: dict[str, Path] = {}
        self._stems: dict[str, Path] = {}
        #: files whose names differ in folder or extension alone, each after the one that counts
        self.repeated: list[tuple[Path, Path]] = []
        seen: set[str] = set()
        for parent, folders, files in os.walk(path, followlinks=True):
            # Links to other disks are common; a link to a folder above would never end.
            real = os.path.realpath(parent)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            folders.sort()
            for name in sorted(files):
                file = Path(parent, name)
                if file.suffix.lower() in self.extensions:
                    # Of two files with one name, the one nearer to the top counts: os.walk visits it first.
                    self._exact.setdefault(file.relative_to(path).as_posix(), file)
                    self._exact.setdefault(name, file)
                    if (first := self._stems.setdefault(file.stem, file)) != file:
                        self.repeated.append((first, file))
        self._exact_as_seen = _as_seen(self._exact)
        self._stems_as_seen = _as_seen(self._stems)

    @property
    def stems(self) -> Mapping[str, Path]:
        """The files by their names without extension."""
        return self._stems

    def find(self, name: str) -> Path | None:
        """The file of that name, path below the folder, or stem; its extension may have changed.

        Without one, that of a name that looks the same.
        """
        file = self._find(name, self._exact, self._stems)
        return file or self._find(as_seen(name), self._exact_as_seen, self._stems_as_seen)

    def _find(self, name: str, exact: Mapping[str, Path], stems: Mapping[str, Path]) -> Path | None:
        base = name.rsplit("/", 1)[-1]
        stem, dot, extension = base.rpartition(".")
        file = exact.get(name) or stems.get(base)
        if file is None and dot and f".{extension.lower()}" in self.extensions:
            file = exact.get(base) or stems.get(stem)
        return file

    def missing(self, names: Sequence[str], total: int, remedy: str) -> MissingFilesError:
        """The error that names what is missing."""
        first = ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
        return MissingFilesError(
            f"{len(names)} of {total} files are missing: {first}; looked in {self.path} and below "
            f"for these names with {', '.join(self.extensions)}; {remedy}"
        )


def _as_seen(files: Mapping[str, Path]) -> dict[str, Path]:
    """The files by what their names look like; of two that look the same, the first counts."""
    alike: dict[str, Path] = {}
    for name, file in files.items():
        alike.setdefault(as_seen(name), file)
    return alike


def find_files(
    name: str,
    annotated: Iterable[Annotated],
    folder: MediaFolder,
    *,
    allow_missing: bool = False,
    report: Report = silent,
) -> Split:
    """Find the file of each annotated video.

    Args:
        name: the name of the split, for messages.
        annotated: the videos of the annotation files.
        folder: where to look.
        allow_missing: leave out videos without a file.
        report: told which videos are left out.

    Raises:
        MissingFilesError: files are missing and `allow_missing` is false, or all files are missing.
        InputError: there is no annotated video.
    """
    items, missing = [], []
    for video in annotated:
        path = folder.find(video.video_id)
        if path is None:
            missing.append(video.video_id)
        else:
            items.append(
                CaptionedVideo(video.video_id, path, video.captions, video.span_seconds, video.answers)
            )
    total = len(items) + len(missing)
    if not total:
        raise InputError(f"{name}: the annotation files name no video")
    if missing and not items:
        raise folder.missing(missing, total, "set data.videos to the folder that holds them")
    if missing and not allow_missing:
        raise folder.missing(
            missing, total, "download them, or set data.allow_missing=true to do without them"
        )
    if missing:
        report(f"{name}: {folder.missing(missing, total, 'going on without them')}")
    return Split(name, tuple(items))
