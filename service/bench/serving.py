"""HTTP search against the same search in process, and queries a second at several clients.

All of it is the first stage: what re-ranking costs is measured apart.
"""

import itertools
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.bench.figures import Bar, Figure, ratios
from service.live import open_searcher
from service.search.searcher import Searcher, SearchOptions
from service.server_process import ServerProcess, post_json, running_server
from service.settings import load_settings

SECTION = "Search over HTTP"
CLIENTS = (1, 8, 32)
_TOP_K = 10
_BAR = Bar("<=", 1.3)
_WARM_UP = 20
# For many clients on a slow machine; what is measured is how long it takes.
_PATIENCE_SECONDS = 600.0


def query_texts() -> Iterator[str]:
    """Endless captions of everyday length; none comes twice, so no cache can help."""
    who = ("a man", "two women", "a small dog", "children", "a red car", "a band", "an old couple", "a chef")
    does = ("walking along", "playing beside", "waiting near", "racing past", "talking about", "dancing at")
    where = ("a busy street", "the beach at sunset", "a wooden table", "an empty stage", "a green meadow")
    for number in itertools.count():
        subject = who[number % len(who)]
        rest = f"{does[number % len(does)]} {where[number % len(where)]}"
        yield f"{subject} {rest} in scene {number}"


@dataclass(frozen=True)
class Load:
    """What clients saw that searched at the same time."""

    seconds: float
    latencies: tuple[float, ...]
    """Seconds that each search took."""
    reranked: float
    """The share of the answers that were re-ranked."""

    @property
    def rate(self) -> float:
        """Searches a second."""
        return len(self.latencies) / self.seconds


def measure(
    library: Path, bundle: Path | None, *, repeats: int, queries: int, clients: Sequence[int] = CLIENTS
) -> list[Figure]:
    """Start a server on `library` and compare; `queries` searches for each figure of a repetition."""
    settings = load_settings({"library": library, "bundle": bundle})
    searcher = open_searcher(settings)
    texts = query_texts()
    about = f"{searcher.snapshot.num_segments} segments, top_k {_TOP_K}, {queries} searches a repetition"
    with running_server(library, bundle=bundle) as server:
        _compare(searcher, server, take(texts, _WARM_UP))
        pairs = [_compare(searcher, server, take(texts, queries)) for _ in range(repeats)]
        rates: dict[int, list[float]] = {count: [] for count in clients}
        for _ in range(repeats):
            for count in clients:
                rates[count].append(drive(server, [_body(text) for text in take(texts, queries)], count).rate)
    inside, outside = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    figures = [
        Figure(
            SECTION, "median over HTTP ÷ median in process", ratios(outside, inside), bar=_BAR, note=about
        ),
        Figure(SECTION, "median in process", tuple(1000 * value for value in inside), "ms"),
        Figure(SECTION, "median over HTTP, 1 client", tuple(1000 * value for value in outside), "ms"),
    ]
    for count, values in rates.items():
        label = f"{count} client{'s' if count > 1 else ''}"
        figures.append(Figure(SECTION, f"queries a second, {label}", tuple(values), "queries/s"))
    return figures


def take(texts: Iterator[str], count: int) -> list[str]:
    """The next `count` texts."""
    return list(itertools.islice(texts, count))


def _body(text: str) -> dict[str, object]:
    return {"query": {"text": text}, "top_k": _TOP_K, "rerank": False}


def _compare(searcher: Searcher, server: ServerProcess, texts: Sequence[str]) -> tuple[float, float]:
    """Median seconds in process and over HTTP; the two take turns, query by query."""
    inside: list[float] = []
    outside: list[float] = []
    connection = server.connect()
    try:
        for number, text in enumerate(texts):
            for over_http in (False, True) if number % 2 else (True, False):
                started = time.perf_counter()
                if over_http:
                    post_json(connection, "/v1/search", _body(text))
                else:
                    searcher.search(text, _TOP_K, SearchOptions(rerank=False))
                (outside if over_http else inside).append(time.perf_counter() - started)
    finally:
        connection.close()
    return statistics.median(inside), statistics.median(outside)


def drive(server: ServerProcess, bodies: Sequence[dict[str, Any]], clients: int) -> Load:
    """Send the searches from `clients` that each send one after another, on connections of their own.

    Raises:
        RequestFailed: the server does not answer one.
    """
    together = threading.Barrier(clients + 1)

    def client(share: Sequence[dict[str, Any]]) -> list[tuple[float, bool]]:
        connection = server.connect(_PATIENCE_SECONDS)
        seen = []
        try:
            connection.connect()
            together.wait()
            for body in share:
                started = time.perf_counter()
                answer = post_json(connection, "/v1/search", body)
                seen.append((time.perf_counter() - started, bool(answer["reranked"])))
        except BaseException:
            together.abort()
            raise
        finally:
            connection.close()
        return seen

    with ThreadPoolExecutor(clients) as pool:
        futures = [pool.submit(client, bodies[number::clients]) for number in range(clients)]
        together.wait()
        started = time.perf_counter()
        seen = [entry for future in futures for entry in future.result()]
        seconds = time.perf_counter() - started
    reranked = sum(was for _, was in seen) / max(1, len(seen))
    return Load(seconds, tuple(latency for latency, _ in seen), reranked)
