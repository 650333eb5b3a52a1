"""Compares filtered searches with unfiltered ones, and further pages with the first, in a large library.

The library is synthetic: the indexer's own tables and index, with segments whose embeddings lie in clusters.
It stores no tokens, so that no matching head runs, whose time would hide what a filter or a page costs.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.library.snapshot import Snapshot
from model.runtime.bundle import Bundle
from service.bench.ann import clustered_vectors, recall
from service.bench.figures import Bar, Figure, Section, milliseconds, ratios
from service.bench.synthetic import make_library, now, video_row
from service.search.encoded_query import EncodedQuery
from service.search.filters import Range
from service.search.page_tokens import question_mark
from service.search.pages import Pages
from service.search.queues import SearchQueues
from service.search.searcher import OpenSearch, Searcher, SearchOptions

_SEGMENTS_A_VIDEO = 10
_CLUSTER_SIZE = 500
_TOP_K = 10
_PAGE = 100
_RECALL_AT = 100
_SHARES = (0.01, 0.1, 0.5)
_BARRED_SHARE = 0.1
_FILTER_BAR = Bar("<=", 1.5)
_PAGE_BAR = Bar("<=", 1.2)
_RECALL_BAR = Bar(">=", 0.95)


def measure_paging(bundle_folder: Path, *, segments: int, queries: int, repeats: int) -> list[Figure]:
    """The time of filtered searches and of page 100, relative to plain ones, and the recall under filters."""
    bundle = Bundle.open(bundle_folder)
    dim = bundle.manifest.embedding_dim
    corpus, asked = clustered_vectors(
        segments, queries, dim, clusters=max(1, segments // _CLUSTER_SIZE), seed=7
    )
    with tempfile.TemporaryDirectory() as folder:
        _make_library(Path(folder) / "library", bundle, corpus)
        searcher = Searcher(SearchQueues(bundle), Snapshot.open(Path(folder) / "library"), 100)
        salience = np.zeros(searcher.snapshot.salience_dim, np.float32)
        encoded = [EncodedQuery(vector, salience, None) for vector in asked]
        note = f"{segments:,} segments, index {searcher.snapshot.manifest.index_factory}, {queries} searches"
        return [
            *_filtered(searcher, encoded, repeats, note),
            *_recalls(searcher, asked, corpus),
            *_pages(searcher, encoded, repeats),
        ]


def _filtered(searcher: Searcher, queries: Sequence[EncodedQuery], repeats: int, note: str) -> list[Figure]:
    options = {share: SearchOptions(group_by="moment", where=_filter(share)) for share in _SHARES}
    plain = SearchOptions(group_by="moment")

    def search(asked: SearchOptions) -> Callable[[EncodedQuery], object]:
        return lambda query: searcher.search_encoded(query, _TOP_K, asked)

    whole: list[float] = []
    some: dict[float, list[float]] = {share: [] for share in _SHARES}
    for turn in range(repeats + 1):
        seconds = _seconds(queries, search(plain))
        each = {share: _seconds(queries, search(asked)) for share, asked in options.items()}
        if turn:  # the first turn reads from disk, and finds what filters leave
            whole.append(seconds)
            for share, value in each.items():
                some[share].append(value)
    return [
        Figure(Section.PAGING, "search without a filter", milliseconds(whole), "ms", note=note),
        *(
            Figure(
                Section.PAGING,
                f"search with a filter that leaves {share:.0%} ÷ without",
                ratios(values, whole),
                bar=_FILTER_BAR if share == _BARRED_SHARE else None,
            )
            for share, values in some.items()
        ),
    ]


def _recalls(searcher: Searcher, queries: NDArray[np.float32], corpus: NDArray[np.float32]) -> list[Figure]:
    figures = []
    for share in _SHARES:
        allowed = searcher.selections.of(_filter(share)).rows
        _, found = searcher.snapshot.search(queries, _RECALL_AT, allowed=allowed)
        scores = queries @ corpus[allowed].T
        exact = allowed[np.argsort(-scores, axis=1)[:, :_RECALL_AT]]
        name = f"recall@{_RECALL_AT} with a filter that leaves {share:.0%}"
        figures.append(Figure(Section.PAGING, name, (recall(found, exact),), bar=_RECALL_BAR))
    return figures


def _pages(searcher: Searcher, queries: Sequence[EncodedQuery], repeats: int) -> list[Figure]:
    """Page 100, read after those before it, and with nothing kept, against page 1."""
    options = SearchOptions(group_by="moment")
    question = question_mark("bench")
    first: list[float] = []
    last: list[float] = []
    again: list[float] = []
    for _ in range(repeats):
        seconds = np.zeros(3)
        for query in queries:
            pages = Pages()

            def ask(asked: Searcher, allowed: SearchOptions, query: EncodedQuery = query) -> OpenSearch:
                return asked.open_encoded(query, _TOP_K, allowed)

            started = time.perf_counter()
            result = pages.first(searcher, question, options, ask)
            seconds[0] += time.perf_counter() - started
            token = ""
            for _page in range(_PAGE - 1):
                token = result.next_page_token or token
                started = time.perf_counter()
                result = pages.following(searcher, question, token, "", options, ask)
                took = time.perf_counter() - started
            seconds[1] += took
            started = time.perf_counter()
            Pages().following(searcher, question, token, "", options, ask)
            seconds[2] += time.perf_counter() - started
        for values, value in zip((first, last, again), (seconds / len(queries)).tolist(), strict=True):
            values.append(value)
    note = f"{_TOP_K} hits a page"
    return [
        Figure(Section.PAGING, f"page {_PAGE} ÷ page 1", ratios(last, first), bar=_PAGE_BAR, note=note),
        Figure(
            Section.PAGING,
            f"page {_PAGE}, where the ranking is not kept any more ÷ page 1",
            ratios(again, first),
        ),
    ]


def _seconds(queries: Sequence[EncodedQuery], search: Callable[[EncodedQuery], object]) -> float:
    started = time.perf_counter()
    for query in queries:
        search(query)
    return (time.perf_counter() - started) / len(queries)


def _filter(share: float) -> Range:
    """A filter that leaves about this share of the videos: frame rates are spread evenly from 0 to 1."""
    return Range("fps", lt=share)


def _make_library(folder: Path, bundle: Bundle, embeddings: NDArray[np.float32]) -> None:
    """A published library of videos of ten segments, each with one frame of the segment's embedding."""
    rng, made = np.random.default_rng(5), now()
    make_library(
        folder,
        bundle,
        (
            (
                video_row(number, made, num_segments=len(vectors), fps=float(rng.random())),
                list(vectors),
            )
            for number, vectors in enumerate(
                embeddings[first : first + _SEGMENTS_A_VIDEO]
                for first in range(0, len(embeddings), _SEGMENTS_A_VIDEO)
            )
        ),
    )
