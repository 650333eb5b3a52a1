"""What users keep out of a library: contents, wherever they are; files and folders, whatever they hold."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Literal

from indexer.library.records import VideoRecord, displayable

#: Excluded for good; or removed, which is forgotten once no file has the content any more.
ExclusionKind = Literal["excluded", "removed"]


@dataclass(frozen=True)
class Content:
    """A content: `sha256` identifies it, or `video_id` where that is empty because it could not be read."""

    video_id: str
    sha256: str
    bytes: int

    @property
    def key(self) -> str:
        """Identifies the content among others."""
        return self.sha256 or self.video_id


@dataclass(frozen=True)
class Place:
    """Where a content was found.

    `mtime_ns` is as in `stored_ns`; `path` is in bytes, since it need not be UTF-8.
    """

    path: bytes
    bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class NewExclusion:
    """Something to keep out; for the fields, see `Exclusion`."""

    kind: ExclusionKind
    reason: str | None = None
    path: bytes | None = None
    content: Content | None = None
    places: tuple[Place, ...] = ()

    @classmethod
    def of_video(cls, video: VideoRecord, kind: ExclusionKind, reason: str | None = None) -> "NewExclusion":
        """One of the content of a video, with the places that the library knows."""
        content = Content(video.video_id, video.sha256, video.bytes)
        places = (Place(os.fsencode(file.path), video.bytes, file.mtime_ns) for file in video.files)
        return cls(kind, reason, None, content, tuple(places))


@dataclass(frozen=True)
class Exclusion:
    """One thing that users keep out: either a path, with everything below it, or a content.

    Attributes:
        number: identifies it.
        kind: until when it holds.
        created: when it was made, in UTC.
        reason: why, in a user's words; None: nobody said.
        path: the absolute path of a file or a folder; None: a content is kept out.
        content: what is kept out; None: a path is.
        places: where the content was found.
    """

    number: int
    kind: ExclusionKind
    created: datetime
    reason: str | None
    path: bytes | None = None
    content: Content | None = None
    places: tuple[Place, ...] = ()

    @property
    def shown(self) -> str:
        """What is kept out, for people: a path, or the place of a content, else its id."""
        if self.path is not None:
            return displayable(self.path)
        if self.places:
            return displayable(self.places[0].path)
        return "" if self.content is None else self.content.video_id


class Exclusions:
    """All exclusions of a library, which never change.

    Attributes:
        items: the exclusions, the oldest first.
    """

    def __init__(self, items: Iterable[Exclusion] = ()) -> None:
        self.items = tuple(items)
        self._by_path = {each.path: each for each in self.items if each.path is not None}
        self._by_content = {each.content.key: each for each in self.items if each.content is not None}

    def __bool__(self) -> bool:
        return bool(self.items)

    @property
    def content_keys(self) -> list[str]:
        """The keys of the contents, see `Content.key`."""
        return list(self._by_content)

    @cached_property
    def checksums_by_size(self) -> dict[int, list[str]]:
        """The checksums of the contents, by their sizes in bytes."""
        found: dict[int, list[str]] = {}
        for each in self.items:
            if each.content is not None and each.content.sha256:
                found.setdefault(each.content.bytes, []).append(each.content.sha256)
        return found

    @property
    def has_paths(self) -> bool:
        """Whether any path is excluded."""
        return bool(self._by_path)

    def of_path(self, path: bytes) -> Exclusion | None:
        """The exclusion of a file or folder, or of a folder above it; None: there is none."""
        part = path
        while self._by_path:
            if part in self._by_path:
                return self._by_path[part]
            above = os.path.dirname(part)  # noqa: PTH120  paths are bytes here
            if above in (part, b""):
                break
            part = above
        return None

    def of_content(self, video_id: str, sha256: str) -> Exclusion | None:
        """The exclusion of a content; None: there is none. `sha256` is empty where it is not known."""
        return self._by_content.get(sha256 or video_id)

    def of_place(self, path: Path, size: int, mtime_ns: int) -> Exclusion | None:
        """The exclusion of the content that a file has, if it is the file that was found there before."""
        return self._by_place.get(Place(os.fsencode(path), size, mtime_ns))

    @cached_property
    def _by_place(self) -> dict[Place, Exclusion]:
        return {place: each for each in self.items for place in each.places}


NO_EXCLUSIONS = Exclusions()
