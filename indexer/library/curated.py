"""A snapshot as users have curated it: without what they keep out, and with what they say of the rest.

It may be limited to a folder: then it looks as if nothing else were in it.
"""

import math
from collections.abc import Collection
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from indexer.library.annotations import TagCount, count_tags
from indexer.library.catalog import VideoCatalog, VideoLabel
from indexer.library.curation import NOTHING, CurationState
from indexer.library.exclusions import Exclusions
from indexer.library.lines import QueryWords
from indexer.library.records import SEARCHABLE, TextLine, Verdict, VideoRecord
from indexer.library.schema import LineKind
from indexer.library.snapshot import Snapshot

#: Where so many segments are hidden at most, the index is asked for so many more; where there are more, it is
#: asked for the others alone, which not every index can do.
_MOST_OVER_FETCHED = 10_000


class CuratedSnapshot(Snapshot):
    """A snapshot that looks as if the excluded videos were not in it. It never changes, as any snapshot.

    Rows of segments and videos are those of the snapshot itself.

    Attributes:
        num_videos: without the hidden ones.
        folder: the folder that it is limited to, as stored; None: it is not.
    """

    folder: bytes | None = None

    _itself: Snapshot
    #: Rows of the hidden segments, ascending, and whether each segment is hidden.
    _hidden: NDArray[np.int64]
    _is_hidden: NDArray[np.bool_]
    #: Videos whose first place is hidden: the names that are stored of them are of that place.
    _renamed: frozenset[str]

    @classmethod
    def of(
        cls, snapshot: Snapshot, state: CurationState = NOTHING, folder: bytes | None = None
    ) -> "CuratedSnapshot":
        """A snapshot, or one that was curated before, as it is curated now, in `folder` if that is given."""
        before = snapshot if isinstance(snapshot, CuratedSnapshot) else None
        if folder is None and before is not None:
            folder = before.folder
        itself = snapshot if before is None else before._itself
        curated = cls.__new__(cls)
        is_same = before is not None and before.curation.exclusions is state.exclusions
        if before is not None and is_same and before.folder == folder:
            curated.__dict__.update(before.__dict__)
        else:
            curated.__dict__.update(itself.__dict__)
            curated._itself, curated.folder = itself, folder
            curated._hide(state.exclusions)
        curated.curation = state
        return curated

    def _hide(self, exclusions: Exclusions) -> None:
        all_videos = self._videos
        hidden = excluded_places(all_videos, exclusions)
        if self.folder is not None:
            hidden |= ~places_in(all_videos, self.folder)
        if hidden.any():
            self._videos = all_videos.showing(~hidden)
        self._is_hidden = ~self._videos.visible[self.video_rows]
        self._hidden = np.flatnonzero(self._is_hidden)
        self._renamed = frozenset()
        if hidden.any():
            self.num_videos = sum(self._videos.count(verdict) for verdict in SEARCHABLE)
            rows, firsts = np.unique(all_videos.paths[0], return_index=True)
            renamed = rows[hidden[firsts] & self._videos.visible[rows]]
            self._renamed = frozenset(all_videos.id_at(row) for row in renamed.tolist())

    @property
    def num_visible_segments(self) -> int:
        """See `Snapshot.num_visible_segments`."""
        return self.num_segments - len(self._hidden)

    def search(
        self,
        embeddings: NDArray[np.float32],
        num_candidates: int,
        *,
        allowed: NDArray[np.int64] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """See `Snapshot.search`; hidden segments are not found."""
        count = len(self._hidden)
        if not count:
            return super().search(embeddings, num_candidates, allowed=allowed)
        if allowed is not None:
            return super().search(embeddings, num_candidates, allowed=allowed[~self._is_hidden[allowed]])
        if count > _MOST_OVER_FETCHED:
            return super().search(embeddings, num_candidates, allowed=np.flatnonzero(~self._is_hidden))
        scores, rows = super().search(embeddings, num_candidates + count)
        return _without(scores, rows, self._is_hidden, num_candidates)

    def find_lines(
        self,
        text: str,
        limit: int,
        kinds: Collection[LineKind] | None = None,
        least_coverage: float = 0.0,
        *,
        videos: NDArray[np.bool_] | None = None,
    ) -> list[TextLine]:
        """See `Snapshot.find_lines`. Titles and tags that users gave come first; they have no score."""
        if len(self._hidden):
            videos = self._videos.visible if videos is None else videos & self._videos.visible
        lines = self._own(super().find_lines(text, limit, kinds, least_coverage, videos=videos))
        if kinds is not None and "name" not in kinds:
            return lines

        def counts(video_id: str) -> bool:
            row = self._videos.row_of(video_id)
            return row is not None and (videos is None or bool(videos[row]))

        query = QueryWords(text)
        found = self.curation.names.find(query, limit, counts)
        given = [self._given_line(video_id, query) for video_id in found]
        return [line for line in given if line.coverage >= least_coverage] + lines

    def lines_between(
        self,
        video_id: str,
        start_seconds: float = -math.inf,
        end_seconds: float = math.inf,
        text: str = "",
    ) -> list[TextLine]:
        """See `Snapshot.lines_between`. The title and the tags that users gave come first."""
        if self.label(video_id) is None:
            return []
        given = []
        if video_id in self.curation.names.lines:
            given = [self._given_line(video_id, QueryWords(text))]
        return given + self._own(super().lines_between(video_id, start_seconds, end_seconds, text))

    def _own(self, lines: list[TextLine]) -> list[TextLine]:
        """Lines without the names that videos have in places that are hidden."""
        return [line for line in lines if line.kind != "name" or line.video_id not in self._renamed]

    def video(self, video_id: str) -> VideoRecord | None:
        """See `Snapshot.video`."""
        record = super().video(video_id)
        return None if record is None else self._annotated(record)

    def label(self, video_id: str) -> VideoLabel | None:
        """See `Snapshot.label`."""
        label = super().label(video_id)
        return None if label is None else label._replace(annotation=self.curation.annotation(video_id))

    def records(self, rows: NDArray[np.int64]) -> list[VideoRecord]:
        """See `Snapshot.records`."""
        return [self._annotated(record) for record in super().records(rows)]

    def videos(self, offset: int, limit: int, verdict: Verdict | None = None) -> list[VideoRecord]:
        """See `Snapshot.videos`."""
        return [self._annotated(record) for record in super().videos(offset, limit, verdict)]

    def _annotated(self, record: VideoRecord) -> VideoRecord:
        return replace(record, annotation=self.curation.annotation(record.video_id))

    def _given_line(self, video_id: str, query: QueryWords) -> TextLine:
        """What users gave a video, as a line with what it has of a query."""
        line = self.curation.names.lines[video_id]
        matches = query.matches(line)
        rows = self.segment_rows(video_id)
        end = self.segment_span(int(rows[-1]))[1] if len(rows) else 0.0
        coverage = query.coverage(line, matches)
        return TextLine(video_id, "name", 0.0, end, None, line, 0.0, matches, coverage, by_user=True)


def excluded_places(videos: VideoCatalog, exclusions: Exclusions) -> NDArray[np.bool_]:
    """Which places are excluded, or their content, bool [P] in the order of `VideoCatalog.paths`."""
    owners, paths = videos.paths
    if not exclusions:
        return np.zeros(len(owners), np.bool_)
    ids, checksums = videos.column("video_id"), videos.column("sha256")
    keys = pc.if_else(pc.equal(checksums, ""), ids, checksums)
    contents = pc.is_in(keys, pa.array(exclusions.content_keys, pa.string())).to_numpy(zero_copy_only=False)
    excluded: NDArray[np.bool_] = contents[owners]
    if exclusions.has_paths:
        excluded |= np.array([exclusions.of_path(path) is not None for path in paths.to_pylist()], np.bool_)
    return excluded


def places_in(videos: VideoCatalog, folder: bytes) -> NDArray[np.bool_]:
    """Which places lie in a folder, however deep, bool [P] in the order of `VideoCatalog.paths`."""
    start = folder.rstrip(b"/") + b"/"
    inside: NDArray[np.bool_] = pc.starts_with(videos.paths[1], start).to_numpy(zero_copy_only=False)
    return inside


def tags_of(snapshot: Snapshot, videos: NDArray[np.bool_] | None = None) -> list[TagCount]:
    """The tags of a snapshot's videos, the most frequent first.

    Args:
        snapshot: the snapshot, curated.
        videos: which videos count, bool, one a row of its `catalog`; None: all that are not hidden.
    """
    said, row_of = snapshot.curation.annotations, snapshot.catalog.row_of
    rows = ((each, row_of(video_id)) for video_id, each in said.items() if each.tags)
    return count_tags(each for each, row in rows if row is not None and (videos is None or videos[row]))


def _without(
    scores: NDArray[np.float32], rows: NDArray[np.int64], is_hidden: NDArray[np.bool_], count: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The first `count` results of each query not hidden; rows of -1 where there are fewer. [B, K]"""
    keep = (rows >= 0) & ~is_hidden[rows]
    order = np.argsort(~keep, axis=1, kind="stable")[:, :count]
    kept = np.take_along_axis(keep, order, axis=1)
    return (
        np.where(kept, np.take_along_axis(scores, order, axis=1), -np.inf).astype(np.float32),
        np.where(kept, np.take_along_axis(rows, order, axis=1), -1),
    )
