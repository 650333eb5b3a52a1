"""What re-ranking costs: over the matching head alone, by salient frames, for clients that search at once.

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
from service.bench.figures import Bar, Figure, ratios
from service.bench.serving import CLIENTS, Load, drive, query_texts, take
from service.live import open_searcher
from service.search.encoded_query import EncodedQuery
from service.search.rerank import salient_frames
from service.search.results import SearchResult
from service.search.searcher import Searcher, SearchOptions
from service.server_process import running_server
from service.settings import load_settings

SECTION = "Re-ranking"
SALIENT_FRAMES = (1, 2, 4, 8, 16)
CANDIDATES = 100
_TOP_K = 10
_BAR = Bar("<=", 1.25)
_WARM_UP = 3
# What is measured here is the work, not when it is given up.
_NO_DEADLINE_MS = 3_600_000


def measure(
    library: Path, bundle: Path | None, *, repeats: int, queries: int, clients: Sequence[int] = CLIENTS
) -> list[Figure]:
    """Measure on a library whose frames have tokens; `queries` searches for each figure of a repetition.

    Raises:
        ReelfindError: nothing is re-ranked: the bundle has no matching head, or the library no tokens.
    """
    settings = load_settings({"library": library, "bundle": bundle})
    searcher = open_searcher(settings)
    try:
        inside = in_process(searcher, repeats=repeats, queries=queries)
    finally:
        searcher.match_queue.close()
    patience = settings.deadline_ms
    return inside + _over_http(library, bundle, repeats, queries, clients, patience)


def in_process(searcher: Searcher, *, repeats: int, queries: int) -> list[Figure]:
    """Re-ranking over the matching head alone on the same tensors, and by number of salient frames."""
    bundle = searcher.bundle
    texts = query_texts()
    salient = bundle.manifest.num_salient_frames
    count = min(CANDIDATES, searcher.snapshot.num_segments)
    matcher = _matcher(bundle)
    for text in take(texts, _WARM_UP):
        _rerank_seconds(searcher, text, salient)
        _run(matcher, _parts(bundle, matcher, *candidate_pairs(searcher, text, count, salient)))
    whole: list[float] = []
    alone: list[float] = []
    over: list[float] = []
    pairs = 0
    asked = max(2, queries // 2)
    for _ in range(repeats):
        took: list[float] = []
        pure: list[float] = []
        for number, text in enumerate(take(texts, asked)):
            tensors = candidate_pairs(searcher, text, count, salient)
            parts = _parts(bundle, matcher, *tensors)
            pairs = len(tensors[1])
            for alone_now in (False, True) if number % 2 else (True, False):
                if alone_now:
                    pure.append(_run(matcher, parts))
                else:
                    took.append(_rerank_seconds(searcher, text, salient))
        over.append(statistics.median(ratios(took, pure)))
        whole.append(statistics.median(took))
        alone.append(statistics.median(pure))
    about = (
        f"{count} candidates, {salient} salient frames: {pairs} pairs with "
        f"{searcher.snapshot.tokens_per_frame} tokens; medians of {asked} queries, taking turns"
    )
    return [
        Figure(SECTION, "re-ranking ÷ matcher.onnx alone", tuple(over), bar=_BAR, note=about),
        Figure(SECTION, "re-ranking", tuple(1000 * value for value in whole), "ms"),
        Figure(SECTION, "matcher.onnx alone", tuple(1000 * value for value in alone), "ms"),
        *_by_salient_frames(searcher, repeats, max(2, queries // 8)),
    ]


def candidate_pairs(
    searcher: Searcher, text: str, count: int, num_salient: int
) -> tuple[TextEncoding, NDArray[np.int64], NDArray[np.float32]]:
    """What the searcher matches for a text: its encoding, rows into it [B], and frame tokens [B, P', H]."""
    snapshot = searcher.snapshot
    encoding = searcher.bundle.encode_text([text], tokens=True)
    query = EncodedQuery(encoding.embedding[0], encoding.salience[0], encoding)
    rows = snapshot.search(query.embedding[None], count)[1][0]
    rows = rows[rows >= 0]
    frames, chosen = salient_frames(snapshot, query, rows, num_salient)
    tokens = snapshot.frame_tokens(rows[np.nonzero(chosen)[0]], frames[chosen])
    return encoding, np.zeros(len(tokens), np.int64), tokens


def _by_salient_frames(searcher: Searcher, repeats: int, queries: int) -> list[Figure]:
    texts = query_texts()
    most = searcher.bundle.manifest.frames_per_segment
    counts = [n for n in SALIENT_FRAMES if n <= most]
    seconds: dict[int, list[float]] = {n: [] for n in counts}
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
        figures.append(Figure(SECTION, "16 salient frames ÷ 2", speed_up, note=note))
    for n, values in seconds.items():
        label = f"{n} salient frame{'s' if n > 1 else ''}"
        figures.append(Figure(SECTION, label, tuple(1000 * value for value in values), "ms"))
    return figures


def _rerank_seconds(searcher: Searcher, text: str, num_salient: int) -> float:
    """Seconds of the stages that a search without re-ranking leaves out."""
    options = SearchOptions(num_candidates=CANDIDATES, num_salient_frames=num_salient)
    result = searcher.search(text, _TOP_K, options)
    _check(result)
    stages = result.timings_ms
    return (stages.salience + stages.tokens + stages.match) / 1000


def _check(result: SearchResult) -> None:
    if not result.reranked:
        why = {
            "no_matcher": "the bundle has no matching head: choose another with --bundle",
            "no_tokens": "the library holds no tokens of its frames: index it again",
        }
        raise ReelfindError(
            f"Nothing is re-ranked: {why.get(str(result.rerank_skipped), result.rerank_skipped)}"
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
    """The graph's inputs, as many pairs at once as the product runs."""
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
    deadline_ms: int,
) -> list[Figure]:
    texts = query_texts()

    def bodies(count: int, deadline: int) -> list[dict[str, object]]:
        fields = {"top_k": _TOP_K, "num_candidates": CANDIDATES, "deadline_ms": deadline}
        return [{"query": {"text": text}, **fields} for text in take(texts, max(queries, count))]

    patient: dict[int, list[Load]] = {count: [] for count in clients}
    hurried: list[Load] = []
    with running_server(library, bundle=bundle) as server:
        drive(server, bodies(1, _NO_DEADLINE_MS)[:_WARM_UP], 1)
        for _ in range(repeats):
            for count in clients:
                patient[count].append(drive(server, bodies(count, _NO_DEADLINE_MS), count))
            hurried.append(drive(server, bodies(clients[-1], deadline_ms), clients[-1]))
    figures = []
    for count, loads in patient.items():
        label = _clients(count)
        rates = tuple(load.rate for load in loads)
        note = f"{max(queries, count)} searches a repetition, no deadline"
        figures.append(Figure(SECTION, f"queries a second, {label}", rates, "queries/s", note=note))
        figures += [_latency(f"p{p}, {label}", loads, p) for p in (50, 95)]
    label = f"{_clients(clients[-1])}, deadline {deadline_ms:,} ms"
    shares = tuple(100 * load.reranked for load in hurried)
    figures.append(Figure(SECTION, f"answers re-ranked, {label}", shares, "%"))
    figures.append(_latency(f"p95, {label}", hurried, 95))
    return figures


def _latency(name: str, loads: Sequence[Load], percentile: int) -> Figure:
    values = tuple(1000 * float(np.percentile(load.latencies, percentile)) for load in loads)
    return Figure(SECTION, name, values, "ms")


def _clients(count: int) -> str:
    return f"{count} client{'s' if count > 1 else ''}"
