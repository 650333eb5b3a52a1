"""What a library shows of itself when nothing is asked: moments drawn at random, and a picture of a video.

Shapes: R segments of the snapshot that are visible.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.library.snapshot import Snapshot
from service.search.views import ALL_PATHS, PathNames


@dataclass(frozen=True)
class Glimpse:
    """A moment that nobody asked for: a segment, and the frame in its middle.

    Attributes:
        video_id: its video.
        path: where that is, as it is shown.
        title: the title that users gave it, or else the file's.
        start_seconds: where the segment starts.
        end_seconds: where it ends.
        frame_id: the frame in the middle of those stored of it.
        pts_seconds: when that is shown.
    """

    video_id: str
    path: str
    title: str | None
    start_seconds: float
    end_seconds: float
    frame_id: str
    pts_seconds: float


def visible_rows(snapshot: Snapshot) -> NDArray[np.int64]:
    """The segments of videos that are visible and not missing, ascending. int64 [R]."""
    catalog = snapshot.catalog
    return np.flatnonzero((catalog.visible & ~catalog.missing)[snapshot.video_rows])


def random_glimpses(snapshot: Snapshot, count: int, seed: int, names: PathNames = ALL_PATHS) -> list[Glimpse]:
    """Moments drawn at random, each segment as likely as any; of as many videos as can be.

    Args:
        snapshot: where to draw them.
        count: how many, at most.
        seed: the same seed draws the same moments of a snapshot.
        names: how paths look.

    Raises:
        LibraryError: a segment is damaged or cannot be read.
    """
    rows = np.random.default_rng(seed).permutation(visible_rows(snapshot))
    is_first = np.zeros(len(rows), np.bool_)
    is_first[np.unique(snapshot.video_rows[rows], return_index=True)[1]] = True
    drawn = np.concatenate([rows[is_first], rows[~is_first]])[:count]
    frames = snapshot.segment_frames(drawn)
    glimpses = []
    for row, num_frames, pts in zip(drawn.tolist(), frames.counts.tolist(), frames.pts_seconds, strict=True):
        video_id = snapshot.video_id_of(row)
        label = snapshot.label(video_id)
        if label is None or not num_frames:
            continue
        start, end = snapshot.segment_span(row)
        middle = num_frames // 2
        frame_id, seconds = snapshot.frame_id(row, middle), float(pts[middle])
        title = label.shown_title
        path = names.shown(label.path)
        glimpses.append(Glimpse(video_id, path, title, start, end, frame_id, seconds))
    return glimpses


def poster_frame(snapshot: Snapshot, video_id: str) -> str | None:
    """The id of the frame in the middle of a video's segment in the middle; None: it has none.

    Raises:
        LibraryError: the segment is damaged or cannot be read.
    """
    rows = snapshot.segment_rows(video_id)
    if not len(rows):
        return None
    row = int(rows[len(rows) // 2])
    num_frames = int(snapshot.segment_frames([row]).counts[0])
    return snapshot.frame_id(row, num_frames // 2) if num_frames else None
