"""Finds videos by the words of the titles and tags that users gave them.

A few videos change at a time, and a search must see that at once. So the words of all videos are in a table
that is made once, those of the videos that changed since are looked through, and from time to time the table
is made anew.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping

from indexer.library.lines import QueryWords, match_keys

#: Lines that may have changed since the table was made.
_MOST_RECENT = 500


class CuratedNames:
    """A line for each video that has one. It never changes; `changed` gives another one.

    Attributes:
        lines: the lines, by the ids of the videos.
    """

    def __init__(self, lines: Mapping[str, str] | None = None) -> None:
        self.lines: Mapping[str, str] = dict(lines or {})
        table: defaultdict[str, list[str]] = defaultdict(list)
        for video_id, line in self.lines.items():
            for key in match_keys(line):
                table[key].append(video_id)
        self._table: Mapping[str, list[str]] = dict(table)
        #: Of the videos that changed since the table was made.
        self._recent: Mapping[str, frozenset[str]] = {}

    def changed(self, lines: Mapping[str, str]) -> "CuratedNames":
        """The same with other lines for some videos; an empty one: the video has none any more."""
        together = {**self.lines, **lines}
        for video_id, line in lines.items():
            if not line:
                del together[video_id]
        recent = {**self._recent, **{video_id: match_keys(line) for video_id, line in lines.items()}}
        if len(recent) > _MOST_RECENT:
            return CuratedNames(together)
        names = CuratedNames.__new__(CuratedNames)
        names.lines, names._table, names._recent = together, self._table, recent
        return names

    def find(self, query: QueryWords, limit: int, counts: Callable[[str], bool]) -> list[str]:
        """The ids of the videos whose lines have most of a query.

        Args:
            query: the query.
            limit: how many videos, at most.
            counts: whether a video counts, by its id.

        Returns:
            Those with most of its letters first; none that has no word of it.
        """
        letters: Counter[str] = Counter()
        for key, weight in query.weights.items():
            for video_id in self._table.get(key, ()):
                if video_id not in self._recent:
                    letters[video_id] += weight
            for video_id, keys in self._recent.items():
                if key in keys:
                    letters[video_id] += weight
        wanted = (video_id for video_id in letters if counts(video_id))
        return heapq.nsmallest(limit, wanted, key=lambda video_id: (-letters[video_id], video_id))
