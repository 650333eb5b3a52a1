"""`reelfind eval`: retrieval figures of a library through the real searcher."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from indexer.library.snapshot import Snapshot
from model.runtime.retrieval_metrics import RetrievalMetrics, ranks, retrieval_metrics
from service.api.schemas import RerankSkipped
from service.errors import QueryError
from service.search.query import clean_text, shorten
from service.search.searcher import Searcher, SearchOptions

_PAGE = 1000
_EXAMPLE = '{"query": "a dog runs", "video": "dog.mp4"}'


@dataclass(frozen=True)
class LabelledQuery:
    """A line of a query file: a text and the video that is right for it."""

    line: int
    text: str
    video: str


def read_queries(file: Path, only_set: str | None, max_characters: int) -> list[LabelledQuery]:
    """The queries of a JSON-lines file with the fields `query` and `video`; blank lines are skipped.

    `only_set` keeps the rows whose field `set` has that value.

    Raises:
        QueryError: the file cannot be read, a row is not as it must be (named by its line), or none is left.
    """
    try:
        # Not splitlines(): it also splits at characters that JSON allows within a string.
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise QueryError(
            f"{file} cannot be read as text in UTF-8: {error}. Give a file with a JSON object a line."
        ) from None
    queries = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        row = _parse(line, where)
        if only_set is not None and row.get("set") != only_set:
            continue
        text, video = _text_field(row, "query", where), _text_field(row, "video", where)
        try:
            queries.append(LabelledQuery(number, clean_text(text, max_characters), video))
        except QueryError as error:
            raise QueryError(f"{where}: {error}") from None
    if not queries:
        which = "no query" if only_set is None else f"no query of the set {shorten(only_set)}"
        raise QueryError(f"{file} holds {which}. A row is like {_EXAMPLE}.")
    return queries


def _parse(line: str, where: str) -> Mapping[str, object]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise QueryError(f"{where} is not JSON: {error}. Write one JSON object a line.") from None
    if not isinstance(row, dict):
        raise QueryError(f'{where} holds {shorten(row)}. Write a JSON object with "query" and "video".')
    return row


def _text_field(row: Mapping[str, object], name: str, where: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        what = f"must be text, not {shorten(value)}" if name in row else "is missing"
        raise QueryError(f'{where}: "{name}" {what}. A row is like {_EXAMPLE}.')
    return value


class VideoFinder:
    """Finds videos by the end of their paths, on whole components: `b/c.mp4` fits `/a/b/c.mp4`."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._by_name: dict[str, list[tuple[int, tuple[str, ...], str]]] = defaultdict(list)
        total = snapshot.count_videos()
        for offset in range(0, total, _PAGE):
            for row, video in enumerate(snapshot.videos(offset, _PAGE), offset):
                parts = PurePath(video.path).parts
                why_not = "" if video.num_segments else f"{video.verdict}: {video.reason}"
                self._by_name[parts[-1]].append((row, parts, why_not))

    def row_of(self, name: str) -> int:
        """The row of the one searchable video that `name` fits, in the snapshot's list of videos.

        Raises:
            QueryError: it fits none, several, or one that could not be indexed.
        """
        wanted = PurePath(name).parts
        fitting = [
            (row, why_not)
            for row, parts, why_not in self._by_name.get(wanted[-1] if wanted else "", [])
            if parts[-len(wanted) :] == wanted
        ]
        shown = shorten(name, 200)
        if not fitting:
            raise QueryError(f"no video of the library is {shown}. Index it, or correct the name.")
        if len(fitting) > 1:
            raise QueryError(f"{len(fitting)} videos of the library end with {shown}. Give more of the path.")
        row, why_not = fitting[0]
        if why_not:
            raise QueryError(
                f"{shown} is in the library but cannot be searched ({why_not}). Leave the row out."
            )
        return row


@dataclass(frozen=True)
class Figures:
    """How well a library's videos are found.

    Attributes:
        similarity: by the first stage alone.
        ensemble: with re-ranking; None where there was none.
        rerank_skipped: why not.
    """

    similarity: RetrievalMetrics
    ensemble: RetrievalMetrics | None
    rerank_skipped: RerankSkipped | None

    def to_json(self) -> dict[str, Any]:
        """The figures of what a search gives, then of both stages by name."""
        best = self.ensemble or self.similarity
        skipped = self.rerank_skipped
        return {**best, "global": self.similarity, "ensemble": self.ensemble, "rerank_skipped": skipped}


def evaluate(
    searcher: Searcher,
    queries: list[LabelledQuery],
    options: SearchOptions | None = None,
    on_ranked: Callable[[], None] = lambda: None,
) -> Figures:
    """R@K in percent, median and mean rank of the right video among all of the library.

    `on_ranked` is called after each query.

    Raises:
        QueryError: a row's video is unknown, ambiguous or not searchable; names the line.
    """
    matcher = VideoFinder(searcher.snapshot)
    targets = []
    for query in queries:
        try:
            targets.append(matcher.row_of(query.video))
        except QueryError as error:
            raise QueryError(f"line {query.line}: {error}") from None
    ranking = searcher.rank_all([query.text for query in queries], options, on_ranked)
    right = np.array(targets)
    return Figures(
        retrieval_metrics(ranks(ranking.similarity, right)),
        None if ranking.ensemble is None else retrieval_metrics(ranks(ranking.ensemble, right)),
        ranking.rerank_skipped,
    )
