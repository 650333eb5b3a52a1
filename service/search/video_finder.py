"""Finds a library's videos: by id, or by name, as people write names."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from indexer.library.records import VIDEO_ID_DIGITS, VideoRecord, displayable
from indexer.library.snapshot import Snapshot
from model.runtime.messages import shorten
from model.runtime.names import as_seen, without_case
from service.errors import NotFoundError, QueryError

_PAGE = 1000


def video_with_id(snapshot: Snapshot, video_id: str, videos: NDArray[np.bool_] | None = None) -> VideoRecord:
    """The video with an id, which may be any text.

    Args:
        snapshot: holds the videos.
        video_id: the id.
        videos: which videos there are for the caller, in the order of the snapshot's list; None: all.

    Raises:
        NotFoundError: there is none.
    """
    row = snapshot.catalog.row_of(video_id)
    is_there = row is not None and (videos is None or videos[row])
    video = snapshot.video(video_id) if is_there else None
    if video is None:
        raise no_such_video(video_id)
    return video


def no_such_video(video_id: str) -> NotFoundError:
    """The error for an id that no video has."""
    return NotFoundError(
        f"No video has the id {shorten(video_id)}. Ids are {VIDEO_ID_DIGITS} hex digits; "
        "GET /v1/videos lists them."
    )


@dataclass(frozen=True)
class _Video:
    """`failure` says why it cannot be searched; empty if it can."""

    row: int
    parts: tuple[str, ...]
    failure: str


class VideoFinder:
    """Finds videos by the last components of their paths: `b/c.mp4` matches `/a/b/c.mp4`.

    A name that matches exactly comes first, then one that looks the same (`as_seen`), then one in another
    case, where the file system takes both for the same file.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._by_name: dict[str, list[_Video]] = defaultdict(list)
        total = snapshot.count_videos()
        for offset in range(0, total, _PAGE):
            for video in snapshot.videos(offset, _PAGE):
                row = snapshot.catalog.row_of(video.video_id)
                if row is None:
                    continue
                failure = "" if video.num_segments else f"{video.verdict}: {video.reason}"
                for place in video.files:
                    parts = PurePath(displayable(place.path)).parts
                    self._by_name[without_case(parts[-1])].append(_Video(row, parts, failure))

    def row_of(self, name: str) -> int:
        """The row of the one searchable video that `name` matches, in the snapshot's list of videos.

        Raises:
            QueryError: `name` matches no video, several, or one that could not be indexed.
        """
        suffix = PurePath(name).parts
        alike = [
            video
            for video in self._by_name.get(without_case(suffix[-1]) if suffix else "", [])
            if _folded(video.parts[-len(suffix) :]) == _folded(suffix)
        ]
        matching = (
            [video for video in alike if video.parts[-len(suffix) :] == suffix]
            or [video for video in alike if _seen(video.parts[-len(suffix) :]) == _seen(suffix)]
            or [video for video in alike if _is_same_file(video.parts, suffix)]
        )
        shown = shorten(name, 200)
        if not matching:
            near = f", but {shorten(str(PurePath(*alike[0].parts)), 200)}" if len(alike) == 1 else ""
            raise QueryError(f"the library has no video {shown}{near}. Index it, or correct the name.")
        # A video may be in several places.
        number = len({video.row for video in matching})
        if number > 1:
            raise QueryError(f"{number} videos of the library match {shown}. Give more of the path.")
        video = matching[0]
        if video.failure:
            raise QueryError(
                f"{shown} is in the library but cannot be searched ({video.failure}). Leave this query out."
            )
        return video.row


def _seen(parts: Sequence[str]) -> list[str]:
    return [as_seen(part) for part in parts]


def _folded(parts: Sequence[str]) -> list[str]:
    return [without_case(part) for part in parts]


def _is_same_file(parts: Sequence[str], suffix: Sequence[str]) -> bool:
    """Whether the file system finds the same file when the end of its path is written as in `suffix`."""
    stored, written = Path(*parts), Path(*parts[: -len(suffix)], *suffix)
    try:
        return stored.samefile(written)
    except OSError:
        return False
