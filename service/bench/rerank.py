"""Measures the cost of re-ranking: against the matching head alone, by salient frames, and for many clients.

Legend of shapes: B pairs, P' tokens a frame, H width of frame tokens.
"""

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.runtime.bundle import Bundle, TextEncoding
from model.runtime.bundle.encodings import matcher_feed
from model.runtime.bundle.graphs import MATCHER
from model.runtime.bundle.sessions import Session, open_session
from model.runtime.errors import ReelfindError
from service.bench.figures import Bar, Figure, Section, milliseconds, ratios
from service.bench.load import SEARCHES_EACH, Load, drive, warm_up
from service.bench.serving import CLIENTS, clients_label, query_texts, take
from service.live import open_searcher
from service.search.encoded_query import EncodedQuery, QueryPart
from service.search.rerank import salient_frames
from service.search.results import SearchResult
from service.search.searcher import Searcher, SearchOptions
from service.server_process import running_server
from service.settings import Settings, load_settings, variable_of

SALIENT_FRAME_COUNTS = (1, 2, 4, 8, 16)
CANDIDATES = 100
_TOP_K = 10
_BAR = Bar("<=", 1.25)
_MOMENTS_BAR = Bar("<=", 1.5)
_WARM_UP = 3
# No search may be cut short: the whole work is measured.
_NO_DEADLINE_MS = 3_600_000


def measure_reranking(
    library: Path, bundle: Path | None, *, repeats: int, queries: int, clients: Sequence[int] = CLIENTS
) -> list[Figure]:
    """Measure on a library, which stores tokens if the bundle has a matching head.

    Args:
        library: the library's folder.
        bundle: the bundle's folder; None: the installed one.
        repeats: repetitions.
        queries: searches for each figure in a repetition.
        clients: how many clients search at the same time.

    Raises:
        ReelfindError: nothing is re-ranked: the bundle has no match, or the library no tokens.
    """
    settings = load_settings({"library": library, "bundle": bundle})
    searcher = open_searcher(settings)
    try:
        figures = measure_in_process(searcher, repeats=repeats, queries=queries)
    finally:
        searcher.queues.close()
    return figures + _over_http(library, bundle, repeats, queries, clients, settings)


def measure_in_process(searcher: Searcher, *, repeats: int, queries: int) -> list[Figure]:
    """Compare re-ranking with the matching head alone on the same tensors, and numbers of salient frames.

    A bundle that re-ranks without a matching head is measured alone.
    """
    has_matcher = searcher.bundle.manifest.match_kind != "salience"
    against_the_matcher = _against_the_matcher(searcher, repeats, queries) if has_matcher else []
    return against_the_matcher + _by_salient_frames(searcher, repeats, max(2, queries // 8))


def _against_the_matcher(searcher: Searcher, repeats: int, queries: int) -> list[Figure]:
    bundle = searcher.bundle
    texts = query_texts()
    salient = bundle.manifest.num_salient_frames
    count = min(CANDIDATES, searcher.snapshot.num_segments)
    matcher = _matcher(bundle)
    for text in take(texts, _WARM_UP):
        _rerank_seconds(searcher, text, salient)
        _run(matcher, _parts(bundle, matcher, *candidate_pairs(searcher, text, count, salient)))
    reranking: list[float] = []
    matching: list[float] = []
    quotients: list[float] = []
    pairs = 0
    num_queries = max(2, queries // 2)
    for _ in range(repeats):
        reranking_seconds: list[float] = []
        matching_seconds: list[float] = []
        for number, text in enumerate(take(texts, num_queries)):
            tensors = candidate_pairs(searcher, text, count, salient)
            parts = _parts(bundle, matcher, *tensors)
            pairs = len(tensors[1])
            for matcher_alone in (False, True) if number % 2 else (True, False):
                if matcher_alone:
                    matching_seconds.append(_run(matcher, parts))
                else:
                    reranking_seconds.append(_rerank_seconds(searcher, text, salient))
        quotients.append(statistics.median(ratios(reranking_seconds, matching_seconds)))
        reranking.append(statistics.median(reranking_seconds))
        matching.append(statistics.median(matching_seconds))
    note = (
        f"{count} candidates, {salient} salient frames: {pairs} pairs with "
        f"{searcher.snapshot.tokens_per_frame} tokens; medians of {num_queries} queries, taking turns"
    )
    return [
        Figure(Section.RERANKING, "re-ranking ÷ matcher.onnx alone", tuple(quotients), bar=_BAR, note=note),
        Figure(Section.RERANKING, "re-ranking", milliseconds(reranking), "ms"),
        Figure(Section.RERANKING, "matcher.onnx alone", milliseconds(matching), "ms"),
    ]


def candidate_pairs(
    searcher: Searcher, text: str, count: int, num_salient: int
) -> tuple[TextEncoding, NDArray[np.int64], NDArray[np.float32]]:
    """The pairs that a search matches for a text: its encoding, rows of it [B], frame tokens [B, P', H]."""
    snapshot = searcher.snapshot
    encoding = searcher.bundle.encode_text([text], tokens=True)
    query = EncodedQuery(encoding.embedding[0], encoding.salience[0], (QueryPart(encoding),))
    rows = snapshot.search(query.embedding[None], count)[1][0]
    rows = rows[rows >= 0]
    frames, chosen, _ = salient_frames(snapshot.segment_frames(rows), query, num_salient)
    tokens = snapshot.frame_tokens(rows[np.nonzero(chosen)[0]], frames[chosen])
    return encoding, np.zeros(len(tokens), np.int64), tokens


def _by_salient_frames(searcher: Searcher, repeats: int, queries: int) -> list[Figure]:
    texts = query_texts()
    most = searcher.bundle.manifest.frames_per_segment
    counts = [n for n in SALIENT_FRAME_COUNTS if n <= most]
    seconds: dict[int, list[float]] = {n: [] for n in counts}
    for text in take(texts, _WARM_UP):
        _rerank_seconds(searcher, text, counts[0])
    for _ in range(repeats):
        took: dict[int, list[float]] = {n: [] for n in counts}
        for number, text in enumerate(take(texts, queries)):
            turn = number % len(counts)
            for n in (*counts[turn:], *counts[:turn]):
                took[n].append(_rerank_seconds(searcher, text, n))
        for n in counts:
            seconds[n].append(statistics.median(took[n]))
    figures = []
    if 16 in counts:
        note = f"the paper's Figure 3; medians of {queries} queries, taking turns"
        speed_up = ratios(seconds[16], seconds[2])
        figures.append(Figure(Section.RERANKING, "16 salient frames ÷ 2", speed_up, note=note))
    for n, values in seconds.items():
        label = f"{n} salient frame{'s' if n > 1 else ''}"
        figures.append(Figure(Section.RERANKING, label, milliseconds(values), "ms"))
    return figures


def _rerank_seconds(searcher: Searcher, text: str, num_salient: int) -> float:
    """Seconds of the stages that only a search with re-ranking has."""
    options = SearchOptions(num_candidates=CANDIDATES, num_salient_frames=num_salient)
    result = searcher.search(text, _TOP_K, options)
    _check(result)
    stages = result.timings_ms
    return (stages.salience + stages.tokens + stages.match) / 1000


def _check(result: SearchResult) -> None:
    if not result.reranked:
        reasons = {
            "no_matcher": "the bundle has no match: choose another with --bundle",
            "no_tokens": "the library holds no tokens of its frames: index it again",
        }
        raise ReelfindError(
            f"Nothing is re-ranked: {reasons.get(str(result.rerank_skipped), result.rerank_skipped)}"
        )


def _matcher(bundle: Bundle) -> Session:
    if "match" not in bundle.capabilities:
        raise ReelfindError(f"{bundle.folder} has no {MATCHER}: choose another bundle with --bundle")
    return open_session(
        bundle.folder / MATCHER,
        bundle.manifest.graph_spec(MATCHER),
        bundle.manifest.dims(),
        bundle.provider,
        threads=bundle.threads,
    )


def _parts(
    bundle: Bundle,
    matcher: Session,
    text: TextEncoding,
    text_rows: NDArray[np.int64],
    tokens: NDArray[np.float32],
) -> list[dict[str, NDArray[np.generic]]]:
    """The matcher's inputs, with as many pairs per call as the service runs."""
    step = bundle.max_pairs
    return [
        matcher_feed(text, text_rows[start : start + step], tokens[start : start + step], matcher.inputs)
        for start in range(0, len(tokens), step)
    ]


def _run(matcher: Session, parts: Sequence[dict[str, NDArray[np.generic]]]) -> float:
    started = time.perf_counter()
    for part in parts:
        matcher.run(["match_logit"], part)
    return time.perf_counter() - started


def _over_http(
    library: Path,
    bundle: Path | None,
    repeats: int,
    queries: int,
    clients: Sequence[int],
    settings: Settings,
) -> list[Figure]:
    deadline_ms = settings.deadline_ms
    texts = query_texts()

    def body(text: str, deadline: int) -> dict[str, object]:
        fields = {"top_k": _TOP_K, "num_candidates": CANDIDATES, "deadline_ms": deadline}
        return {"query": {"text": text}, **fields}

    def bodies(count: int, deadline: int) -> list[dict[str, object]]:
        return [body(text, deadline) for text in take(texts, max(queries, count * SEARCHES_EACH))]

    without_deadline: dict[int, list[Load]] = {count: [] for count in clients}
    with_deadline: dict[int, list[Load]] = {count: [] for count in clients}
    environment = {variable_of("max_deadline_ms"): str(_NO_DEADLINE_MS)}
    with running_server(library, bundle=bundle, environment=environment) as server:
        warm_up(server, lambda: body(next(texts), _NO_DEADLINE_MS), max(clients), settings)
        for _ in range(repeats):
            for count in clients:
                without_deadline[count].append(drive(server, bodies(count, _NO_DEADLINE_MS), count))
            for count in clients:
                with_deadline[count].append(drive(server, bodies(count, deadline_ms), count))
    figures = []
    if 1 in without_deadline:
        quotients = [
            statistics.median(a / (a - b) for a, b in zip(load.latencies, load.moments, strict=True))
            for load in without_deadline[1]
        ]
        name = "search ÷ the same search less finding moments, 1 client"
        figures.append(Figure(Section.RERANKING, name, tuple(quotients), bar=_MOMENTS_BAR))
    for count, loads in without_deadline.items():
        label = clients_label(count)
        rates = tuple(load.rate for load in loads)
        note = f"{max(queries, count * SEARCHES_EACH)} searches per repetition, no deadline"
        figures.append(Figure(Section.RERANKING, f"queries a second, {label}", rates, "queries/s", note=note))
        figures += [_latency(f"p{p}, {label}", loads, p) for p in (50, 95)]
    for count, loads in with_deadline.items():
        label = f"{clients_label(count)}, deadline {deadline_ms:,} ms"
        shares = tuple(100 * load.reranked for load in loads)
        figures.append(Figure(Section.RERANKING, f"answers re-ranked, {label}", shares, "%"))
        candidates = tuple(load.candidates for load in loads)
        figures.append(Figure(Section.RERANKING, f"candidates re-ranked, {label}", candidates, "segments"))
        figures.append(_latency(f"p95, {label}", loads, 95))
    return figures


def _latency(name: str, loads: Sequence[Load], percentile: int) -> Figure:
    values = tuple(1000 * float(np.percentile(load.latencies, percentile)) for load in loads)
    return Figure(Section.RERANKING, name, values, "ms")
