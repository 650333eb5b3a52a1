"""Compares search over HTTP with the same search in process, and measures queries per second: with calls that
searches share, and with one of the same code whose searches share none.

All searches are without re-ranking, whose cost `rerank` measures.
"""

import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from service.bench.figures import Bar, Figure, Section, milliseconds, ratios
from service.bench.load import SEARCHES_EACH, Load, drive, warm_up
from service.live import open_searcher
from service.memory import limit_blas_threads
from service.search.searcher import Searcher, SearchOptions
from service.server_process import ServerProcess, running_server
from service.settings import load_settings, variable_of

CLIENTS = (1, 8, 32)
_TOP_K = 10
_BAR = Bar("<=", 1.1)
_MANY_BAR = Bar(">=", 2.0)
_ALONE_BAR = Bar("<=", 1.05)
_WARM_UP = 20


def query_texts() -> Iterator[str]:
    """Endless captions of usual length, all different, so that no cache can help."""
    subjects = (
        "a man",
        "two women",
        "a small dog",
        "children",
        "a red car",
        "a band",
        "an old couple",
        "a chef",
    )
    actions = (
        "walking along",
        "playing beside",
        "waiting near",
        "racing past",
        "talking about",
        "dancing at",
    )
    places = ("a busy street", "the beach at sunset", "a wooden table", "an empty stage", "a green meadow")
    for number in itertools.count():
        parts = [words[number % len(words)] for words in (subjects, actions, places)]
        yield f"{' '.join(parts)} in scene {number}"


def measure_serving(
    library: Path, bundle: Path | None, *, repeats: int, queries: int, clients: Sequence[int] = CLIENTS
) -> list[Figure]:
    """Start a server on `library` and compare; `queries` searches for each figure in a repetition."""
    limit_blas_threads()  # as the server does
    settings = load_settings({"library": library, "bundle": bundle})
    searcher = open_searcher(settings)
    texts = query_texts()
    note = f"{searcher.snapshot.num_segments} segments, top_k {_TOP_K}, {queries} searches per repetition"
    apart = {variable_of("shared_calls"): "false"}
    with (
        running_server(library, bundle=bundle) as server,
        running_server(library, bundle=bundle, environment=apart) as server_apart,
    ):
        _compare(searcher, server, take(texts, _WARM_UP))
        pairs = [_compare(searcher, server, take(texts, queries)) for _ in range(repeats)]
        servers = {True: server, False: server_apart}
        for each in servers.values():
            warm_up(each, lambda: _body(next(texts)), max(clients), settings)
        loads: dict[tuple[int, bool], list[Load]] = {
            (count, shared): [] for count in clients for shared in servers
        }
        for turn in range(repeats):
            for count in clients:
                for shared in (True, False) if turn % 2 else (False, True):
                    number = max(queries, count * SEARCHES_EACH)
                    bodies = [_body(text) for text in take(texts, number)]
                    loads[count, shared].append(drive(servers[shared], bodies, count))
    inside, outside = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    figures = [
        Figure(
            Section.SEARCH,
            "median over HTTP ÷ median in process",
            ratios(outside, inside),
            bar=_BAR,
            note=note,
        ),
        Figure(Section.SEARCH, "median in process", milliseconds(inside), "ms"),
        Figure(Section.SEARCH, "median over HTTP, 1 client", milliseconds(outside), "ms"),
    ]
    for count in clients:
        name = f"queries a second, {clients_label(count)}"
        figures.append(Figure(Section.SEARCH, name, _rates(loads[count, True]), "queries/s"))
    for count in clients:
        name = f"queries a second without shared calls, {clients_label(count)}"
        figures.append(Figure(Section.SEARCH, name, _rates(loads[count, False]), "queries/s"))
    fewest, most = min(clients), max(clients)
    figures.append(
        Figure(
            Section.SEARCH,
            f"median with shared calls ÷ without, {clients_label(fewest)}",
            ratios(_medians(loads[fewest, True]), _medians(loads[fewest, False])),
            bar=_ALONE_BAR,
        )
    )
    figures.append(
        Figure(
            Section.SEARCH,
            f"queries a second with shared calls ÷ without, {clients_label(most)}",
            ratios(_rates(loads[most, True]), _rates(loads[most, False])),
        )
    )
    figures.append(
        Figure(
            Section.SEARCH,
            f"queries a second of {clients_label(most)} ÷ of {clients_label(fewest)}",
            ratios(_rates(loads[most, True]), _rates(loads[fewest, True])),
            bar=_MANY_BAR,
        )
    )
    return figures


def _rates(loads: Sequence[Load]) -> tuple[float, ...]:
    return tuple(load.rate for load in loads)


def _medians(loads: Sequence[Load]) -> tuple[float, ...]:
    """The median seconds of a search in each repetition."""
    return tuple(statistics.median(load.latencies) for load in loads)


def clients_label(count: int) -> str:
    """A number of clients in words, such as "1 client"."""
    return f"{count} client{'s' if count > 1 else ''}"


def take(texts: Iterator[str], count: int) -> list[str]:
    """The next `count` texts."""
    return list(itertools.islice(texts, count))


def _body(text: str) -> dict[str, Any]:
    return {"query": {"text": text}, "top_k": _TOP_K, "rerank": False}


def _compare(searcher: Searcher, server: ServerProcess, texts: Sequence[str]) -> tuple[float, float]:
    """Median seconds in process and over HTTP, which take turns, query by query."""
    inside: list[float] = []
    outside: list[float] = []
    with server.client() as client:
        for number, text in enumerate(texts):
            for over_http in (False, True) if number % 2 else (True, False):
                started = time.perf_counter()
                if over_http:
                    client.search(**_body(text))
                else:
                    searcher.search(text, _TOP_K, SearchOptions(group_by="moment", rerank=False))
                (outside if over_http else inside).append(time.perf_counter() - started)
    return statistics.median(inside), statistics.median(outside)
