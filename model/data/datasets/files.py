"""From the names in annotation files to the files on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from model.data.datasets.records import Annotated, CaptionedVideo, Split
from model.runtime.errors import InputError
from model.runtime.names import as_seen

VIDEO_EXTENSIONS = (".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".3gp", ".mpg", ".flv", ".wmv")
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")
_NAMED = 5


class MissingFilesError(InputError):
    """Files that annotations name are not in the folder."""


class Folder:
    """All files below a folder, found by their names with or without extension.

    Raises:
        InputError: there is no such folder.
    """

    def __init__(self, path: Path, extensions: Sequence[str], setting: str = "data.videos") -> None:
        if not path.is_dir():
            raise InputError(f"{setting}={path} is no folder: set it to the folder that holds the files")
        self.path, self.extensions = path, tuple(extensions)
        self._exact: dict[str, Path] = {}
        self._stems: dict[str, Path] = {}
        seen: set[str] = set()
        for parent, folders, files in os.walk(path, followlinks=True):
            # Links to other disks are common; one to a folder above would go round for ever.
            real = os.path.realpath(parent)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            folders.sort()
            for name in sorted(files):
                file = Path(parent, name)
                if file.suffix.lower() in self.extensions:
                    # Of two with one name, that nearer to the top counts: os.walk comes to it first.
                    self._exact.setdefault(file.relative_to(path).as_posix(), file)
                    self._exact.setdefault(name, file)
                    self._stems.setdefault(file.stem, file)
        self._exact_as_seen = _as_seen(self._exact)
        self._stems_as_seen = _as_seen(self._stems)

    def find(self, name: str) -> Path | None:
        """The file of that name, path below the folder, or stem; its extension may have changed.

        Without one, that of a name that looks the same.
        """
        found = self._find(name, self._exact, self._stems)
        return found or self._find(as_seen(name), self._exact_as_seen, self._stems_as_seen)

    def _find(self, name: str, exact: Mapping[str, Path], stems: Mapping[str, Path]) -> Path | None:
        base = name.rsplit("/", 1)[-1]
        stem, dot, extension = base.rpartition(".")
        found = exact.get(name) or stems.get(base)
        if found is None and dot and f".{extension.lower()}" in self.extensions:
            found = exact.get(base) or stems.get(stem)
        return found

    def missing(self, names: Sequence[str], total: int, remedy: str) -> MissingFilesError:
        """The error that tells what is missing."""
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
    folder: Folder,
    *,
    allow_missing: bool = False,
    report: Callable[[str], None] | None = None,
) -> Split:
    """The split, each video with its file.

    Args:
        name: of the split, for messages.
        annotated: what the annotation files say.
        folder: where to look.
        allow_missing: leave out videos without a file, and say so to `report`.
        report: is told what was left out.

    Raises:
        MissingFilesError: files are missing and not allowed to be, or all of them are.
        InputError: no video at all.
    """
    items, missing = [], []
    for video in annotated:
        path = folder.find(video.video_id)
        if path is None:
            missing.append(video.video_id)
        else:
            items.append(CaptionedVideo(video.video_id, path, video.captions, video.span_seconds))
    total = len(items) + len(missing)
    if not total:
        raise InputError(f"{name}: the annotation files name no video")
    if missing and not items:
        raise folder.missing(missing, total, "set data.videos to the folder that holds them")
    if missing and not allow_missing:
        raise folder.missing(
            missing, total, "download them, or set data.allow_missing=true to do without them"
        )
    if missing and report is not None:
        report(f"{name}: {folder.missing(missing, total, 'going on without them')}")
    return Split(name, tuple(items))
