"""Measures how well a library's videos are found, with the searcher that also answers requests."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from model.runtime.queries import LabelledQuery, read_queries
from model.runtime.retrieval_metrics import (
    FirstPlaces,
    RetrievalMetrics,
    first_places,
    ranks,
    retrieval_metrics,
)
from service.errors import QueryError
from service.search.moment_evaluation import MomentRecalls, evaluate_moments
from service.search.query import clean_text
from service.search.results import RerankSkipped
from service.search.searcher import Searcher, SearchOptions
from service.search.video_finder import VideoFinder


def read_clean_queries(file: Path, only_set: str | None, max_characters: int) -> list[LabelledQuery]:
    """Read a query file (`read_queries`), and clean each text as a search does (`clean_text`).

    Raises:
        InputError: the file or a line is invalid, or no query is left.
        QueryError: a text is not a valid query; names the line.
    """
    queries = []
    for query in read_queries(file, only_set):
        try:
            queries.append(replace(query, text=clean_text(query.text, max_characters)))
        except QueryError as error:
            raise QueryError(f"{file}, line {query.line}: {error}") from None
    return queries


@dataclass(frozen=True)
class EvaluationResult:
    """How well a library's videos are found.

    Attributes:
        similarity: metrics of the first stage alone.
        ensemble: metrics with re-ranking; None if nothing was re-ranked.
        rerank_skipped: why nothing was re-ranked.
        first_places: how re-ranking changes R@1; None if nothing was re-ranked.
        not_understood: the number of queries of which the model knows no word; they count in the metrics.
        truncated: the number of queries whose end was not read.
        moments: how well the moments are found, where queries say when they are; None: none does.
    """

    similarity: RetrievalMetrics
    ensemble: RetrievalMetrics | None
    rerank_skipped: RerankSkipped | None
    first_places: FirstPlaces | None = None
    not_understood: int = 0
    truncated: int = 0
    moments: MomentRecalls | None = None

    def to_json(self) -> dict[str, Any]:
        """The metrics of the final ranking, followed by those of each stage under its name.

        Where spans are known, those of moments too: of the right video if it was given, or else of all.
        """
        best = self.ensemble or self.similarity
        skipped = self.rerank_skipped
        moments: dict[str, Any] = {}
        if self.moments is not None:
            shown = self.moments.given_video or self.moments.corpus
            moments = {**shown, "moments": asdict(self.moments)}
        return {
            **best,
            **moments,
            "global": self.similarity,
            "ensemble": self.ensemble,
            "rerank_skipped": skipped,
            "first_places": self.first_places,
            "not_understood": self.not_understood,
            "truncated": self.truncated,
        }


def evaluate_library(
    searcher: Searcher,
    queries: list[LabelledQuery],
    options: SearchOptions | None = None,
    on_ranked: Callable[[], None] = lambda: None,
    given_video: bool = False,
) -> EvaluationResult:
    """Rank all videos of the library for each query, and measure where the right one comes.

    The metrics are R@K in percent, and the median and mean rank. Videos rank by their best segments. Where
    queries have spans, moments are searched for too, and with `given_video` also in the right video alone.
    `on_ranked` is called after each query.

    Raises:
        QueryError: the video of a query is unknown, ambiguous or not searchable; names the line.
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
    first_stage = ranks(ranking.similarity, target_rows)
    final = None if ranking.ensemble is None else ranks(ranking.ensemble, target_rows)
    ids = [searcher.snapshot.video_id_at(row) for row in targets]
    moments = evaluate_moments(searcher, queries, ids, options or SearchOptions(), given_video)
    return EvaluationResult(
        retrieval_metrics(first_stage),
        None if final is None else retrieval_metrics(final),
        ranking.rerank_skipped,
        None if final is None else first_places(first_stage, final),
        ranking.not_understood,
        ranking.truncated,
        moments,
    )
