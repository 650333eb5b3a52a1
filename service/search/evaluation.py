"""`reelfind eval`: retrieval figures of a library through the real searcher."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from indexer.library.snapshot import Snapshot
from model.runtime.messages import shorten
from model.runtime.queries import LabelledQuery, read_queries
from model.runtime.retrieval_metrics import RetrievalMetrics, ranks, retrieval_metrics
from service.errors import QueryError
from service.search.query import clean_text
from service.search.results import RerankSkipped
from service.search.searcher import Searcher, SearchOptions

_PAGE = 1000


def read_clean_queries(file: Path, only_set: str | None, max_characters: int) -> list[LabelledQuery]:
    """The queries of a file as `read_queries` reads them, their texts cleaned as a search does.

    Raises:
        InputError: the file or a line cannot be used, or no query is left.
        QueryError: a text cannot be a query; names the line.
    """
    queries = []
    for query in read_queries(file, only_set):
        try:
            queries.append(replace(query, text=clean_text(query.text, max_characters)))
        except QueryError as error:
            raise QueryError(f"{file}, line {query.line}: {error}") from None
    return queries


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
class EvaluationResult:
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


def evaluate_library(
    searcher: Searcher,
    queries: list[LabelledQuery],
    options: SearchOptions | None = None,
    on_ranked: Callable[[], None] = lambda: None,
) -> EvaluationResult:
    """R@K in percent, median and mean rank of the right video among all of the library.

    `on_ranked` is called after each query.

    Raises:
        QueryError: a row's video is unknown, ambiguous or not searchable; names the line.
    """
    finder = VideoFinder(searcher.snapshot)
    targets = []
    for query in queries:
        try:
            targets.append(finder.row_of(query.video))
        except QueryError as error:
            raise QueryError(f"line {query.line}: {error}") from None
    ranking = searcher.rank_all([query.text for query in queries], options, on_ranked)
    target_rows = np.array(targets)
    return EvaluationResult(
        retrieval_metrics(ranks(ranking.similarity, target_rows)),
        None if ranking.ensemble is None else retrieval_metrics(ranks(ranking.ensemble, target_rows)),
        ranking.rerank_skipped,
    )
