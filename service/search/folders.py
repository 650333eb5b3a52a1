"""The folders that videos are in, one level at a time, and what can be counted of videos."""

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from indexer.library.records import Verdict
from service.errors import NotFoundError
from service.search.fields import FIELDS, Facts

#: Fields of which every value is counted.
FACETS = ("codec", "container", "verdict")
# Values of one field that are counted, at most.
_MOST_VALUES = 100


@dataclass(frozen=True)
class Folder:
    """A folder, and the videos in it, however deep. A video with several places counts once.

    Attributes:
        path: the folder.
        num_videos: videos, failures included.
        hours: of those that can be searched.
        has_folders: whether videos are in folders of it.
    """

    path: str
    num_videos: int
    hours: float
    has_folders: bool


@dataclass(frozen=True)
class FolderLevel:
    """A folder and those in it."""

    folder: Folder
    folders: list[Folder]


def folder_level(facts: Facts, parent: str | None, videos: NDArray[np.bool_] | None = None) -> FolderLevel:
    """A folder and those in it.

    Args:
        facts: of all videos.
        parent: the folder; None: the deepest one that all videos are in, which may have no name where paths
            do not begin at the root.
        videos: which videos count, in the order of the catalog; None: all.

    Raises:
        NotFoundError: no video is in that folder.
    """
    read = FIELDS["folder"].read(facts)
    owners = np.arange(facts.catalog.num_rows) if read.owners is None else read.owners
    paths: list[str] = read.values.to_pylist()
    if videos is not None:
        kept = np.flatnonzero(videos[owners])
        owners, paths = owners[kept], [paths[place] for place in kept.tolist()]
    top = _common(paths) if parent is None else parent.rstrip("/") or "/"
    inside = top.rstrip("/") + "/" if top else ""
    below: dict[str, list[int]] = {}
    deeper: set[str] = set()
    everything: list[int] = []
    for owner, path in zip(owners.tolist(), paths, strict=True):
        if path != top and not path.startswith(inside):
            continue
        everything.append(owner)
        if path != top:
            name, _, rest = path[len(inside) :].partition("/")
            below.setdefault(inside + name, []).append(owner)
            if rest:
                deeper.add(inside + name)
    if parent is not None and not everything:
        raise NotFoundError(f"No video is in {top}. GET /v1/folders lists the folders.")
    seconds = searchable_seconds(facts)
    return FolderLevel(
        _folder(top, everything, seconds, bool(below)),
        [_folder(path, below[path], seconds, path in deeper) for path in sorted(below)],
    )


def _common(paths: Sequence[str]) -> str:
    """The deepest folder that all paths are in; it has no name where there is none."""
    return posixpath.commonpath(set(paths)) if paths else ""


def _folder(path: str, owners: Sequence[int], seconds: NDArray[np.float64], has_folders: bool) -> Folder:
    videos = np.unique(np.array(owners, np.int64))
    return Folder(path, len(videos), round(float(seconds[videos].sum()) / 3600, 4), has_folders)


def searchable_seconds(facts: Facts) -> NDArray[np.float64]:
    """The duration of each video that can be searched, and 0 for the others."""
    durations = facts.column("duration_seconds").values
    is_searchable = pc.greater(facts.column("num_segments").values, 0)
    seconds: NDArray[np.float64] = pc.if_else(is_searchable, durations, 0.0).to_numpy(zero_copy_only=False)
    return seconds


@dataclass(frozen=True)
class FacetValue:
    """A value of a field, and how many videos have it."""

    value: str
    num_videos: int


@dataclass(frozen=True)
class Failure:
    """A reason why videos cannot be searched, or not wholly, and how many have it."""

    verdict: Verdict
    reason: str
    num_videos: int


@dataclass(frozen=True)
class Facets:
    """What can be counted of videos.

    Attributes:
        num_videos: how many there are.
        values: the values of the fields in `FACETS`, the most frequent first.
        failures: the reasons, the most frequent first.
    """

    num_videos: int
    values: dict[str, list[FacetValue]]
    failures: list[Failure]


def facets(facts: Facts, videos: NDArray[np.bool_] | None = None) -> Facets:
    """What can be counted of videos; of those for which `videos` is true, bool, one a row of the catalog."""
    visible = facts.catalog.visible
    rows = np.flatnonzero(visible if videos is None else videos & visible)
    values = {}
    for name in FACETS:
        found = facts.column(name).values.take(rows).drop_null().value_counts().to_pylist()
        counted = [FacetValue(each["values"], each["counts"]) for each in found]
        values[name] = sorted(counted, key=lambda x: (-x.num_videos, x.value))[:_MOST_VALUES]
    reasons: dict[tuple[Verdict, str], int] = {}
    columns = (facts.column(name).values.take(rows).to_pylist() for name in ("verdict", "reason"))
    for verdict, reason in zip(*columns, strict=True):
        if reason is not None:
            reasons[verdict, reason] = reasons.get((verdict, reason), 0) + 1
    failures = [Failure(*key, count) for key, count in reasons.items()]
    failures.sort(key=lambda x: (-x.num_videos, x.verdict, x.reason))
    return Facets(len(rows), values, failures[:_MOST_VALUES])
