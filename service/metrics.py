"""Prometheus metrics. Each app has its own registry, so that one process can hold several apps."""

from collections.abc import Callable
from dataclasses import fields
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from service.search.results import (
    AnswerResult,
    QueryWarningKind,
    RerankReduced,
    RerankSkipped,
    SearchResult,
    StageTimings,
)

#: Why the server turned a connection away, or ended it.
ConnectionEnding = Literal["full", "client_share", "idle", "slow_request", "slow_reader", "malformed"]

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_STAGES = tuple(field.name for field in fields(StageTimings))
_PAIRS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_AWAY = ("vectors", "store")
_SEARCHES = (1, 2, 3, 4, 6, 8, 12, 16)
_TEXTS = (1, 2, 4, 8, 16, 32, 64)
_STAGE_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """What `/metrics` shows."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "reelfind_http_requests",
            "HTTP requests answered.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._request_seconds = Histogram(
            "reelfind_http_request_seconds",
            "Time to answer an HTTP request, including sending the body.",
            ("method", "route"),
            buckets=_REQUEST_SECONDS,
            registry=self.registry,
        )
        self._stage_seconds = Histogram(
            "reelfind_search_stage_seconds",
            "Time that each stage of a search takes.",
            ("stage",),
            buckets=_STAGE_SECONDS,
            registry=self.registry,
        )
        self._reranks = Counter(
            "reelfind_reranks",
            "Searches by outcome of re-ranking: done, or why it was skipped.",
            ("result",),
            registry=self.registry,
        )
        self._candidates = Counter(
            "reelfind_reranked_segments", "Segments that were re-ranked.", registry=self.registry
        )
        self._reduced = Counter(
            "reelfind_reranks_reduced",
            "Searches of which fewer candidates were re-ranked than were wanted, by reason.",
            ("reason",),
            registry=self.registry,
        )
        for reason in get_args(RerankReduced):
            self._reduced.labels(reason)
        self._connections = Gauge(
            "reelfind_connections", "Connections that are open.", registry=self.registry
        )
        self._connection_ends = Counter(
            "reelfind_connections_ended",
            "Connections that the server turned away or ended, by reason.",
            ("reason",),
            registry=self.registry,
        )
        for ending in get_args(ConnectionEnding):
            self._connection_ends.labels(ending)
        self._waiting_searches = Gauge(
            "reelfind_searches_waiting", "Searches that wait for a thread.", registry=self.registry
        )
        self._running_searches = Gauge(
            "reelfind_searches_running", "Searches that have a thread.", registry=self.registry
        )
        self._search_processes = Gauge(
            "reelfind_search_processes",
            "Processes that answer searches, the server's own among them.",
            registry=self.registry,
        )
        self._searches_elsewhere = Counter(
            "reelfind_searches_elsewhere",
            "Searches that another process has answered than the server's own.",
            registry=self.registry,
        )
        self._encoders = Gauge(
            "reelfind_encoders", "Streams and clips that are being made.", registry=self.registry
        )
        self._query_warnings = Counter(
            "reelfind_query_warnings",
            "Searches and questions by what was wrong with their text; `nothing_understood` were refused.",
            ("kind",),
            registry=self.registry,
        )
        for kind in (*get_args(QueryWarningKind), "nothing_understood"):
            self._query_warnings.labels(kind)
        self._text_texts = Histogram(
            "reelfind_text_call_texts",
            "Texts in one call of the text encoder.",
            buckets=_TEXTS,
            registry=self.registry,
        )
        self._text_searches = Histogram(
            "reelfind_text_call_searches",
            "Searches that share one call of the text encoder.",
            buckets=_SEARCHES,
            registry=self.registry,
        )
        self._vector_searches = Histogram(
            "reelfind_vector_call_searches",
            "Searches that share one call of the vector index, of those large enough to share one.",
            buckets=_SEARCHES,
            registry=self.registry,
        )
        self._away = Counter(
            "reelfind_away",
            "Requests that failed since the server of the vectors, or the object store, did not answer.",
            ["what"],
            registry=self.registry,
        )
        for what in _AWAY:
            self._away.labels(what)
        self._match_pairs = Histogram(
            "reelfind_match_call_pairs",
            "Text-frame pairs in one call of the matching head.",
            buckets=_PAIRS,
            registry=self.registry,
        )
        self._match_searches = Histogram(
            "reelfind_match_call_searches",
            "Searches that share one call of the matching head.",
            buckets=_SEARCHES,
            registry=self.registry,
        )
        self._cached_rows = Counter(
            "reelfind_row_cache_reads",
            "Rows of the library that searches asked for, by table, and whether they were in memory: hit or "
            "miss.",
            ("table", "result"),
            registry=self.registry,
        )
        for table in ("segments", "frames"):
            for found in ("hit", "miss"):
                self._cached_rows.labels(table, found)
        self._cached_bytes = Gauge(
            "reelfind_row_cache_bytes", "Memory that rows of the library take.", registry=self.registry
        )
        for outcome in ("done", *get_args(RerankSkipped)):
            self._reranks.labels(outcome)  # exported as 0 from the start, which rates need
        self._reloads = Counter(
            "reelfind_reloads",
            "New snapshots by outcome: loaded or refused.",
            ("result",),
            registry=self.registry,
        )
        for outcome in ("loaded", "refused"):
            self._reloads.labels(outcome)
        self._snapshot = Gauge(
            "reelfind_snapshot_number", "Number of the snapshot served; 0 if none is.", registry=self.registry
        )
        self._videos = Gauge("reelfind_videos", "Videos in the snapshot served.", registry=self.registry)
        self._segments = Gauge(
            "reelfind_segments", "Segments in the snapshot served.", registry=self.registry
        )

        self._damaged_reads = Counter(
            "reelfind_damaged_reads",
            "Searches, questions and thumbnails that met something of the library that is damaged or cannot "
            "be read.",
            registry=self.registry,
        )
        self._scrubbed = Counter(
            "reelfind_scrubbed_bytes", "Bytes of the library that the scrub has read.", registry=self.registry
        )
        self._damaged_files = Gauge(
            "reelfind_damaged_files",
            "Files of the snapshot served that the scrub found damaged.",
            registry=self.registry,
        )

    def observe_damaged_read(self) -> None:
        """Count one search or thumbnail that met damage."""
        self._damaged_reads.inc()

    def observe_scrubbed(self, count: int) -> None:
        """Count bytes that the scrub has read."""
        self._scrubbed.inc(count)

    def show_damaged_files(self, count: int) -> None:
        """Set the gauge of damaged files."""
        self._damaged_files.set(count)

    def observe_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request; `route` is the template of its path."""
        method = method if method in _METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()
        self._request_seconds.labels(method, route).observe(seconds)

    def observe_search(self, result: SearchResult) -> None:
        """Count one search, and the time of each stage that it went through."""
        for stage in _STAGES:
            if milliseconds := getattr(result.timings_ms, stage):
                self._stage_seconds.labels(stage).observe(milliseconds / 1000)
        self._reranks.labels(result.rerank_skipped or "done").inc()
        self._candidates.inc(result.num_candidates)
        if result.rerank_reduced is not None:
            self._reduced.labels(result.rerank_reduced).inc()
        self._count_warnings(result)

    def observe_search_elsewhere(self) -> None:
        """Count one search that another process has answered."""
        self._searches_elsewhere.inc()

    def observe_answer(self, result: AnswerResult) -> None:
        """Count what was wrong with one question."""
        self._count_warnings(result)

    def _count_warnings(self, result: SearchResult | AnswerResult) -> None:
        for warning in result.query_warnings:
            self._query_warnings.labels(warning.kind).inc()

    def observe_not_understood(self) -> None:
        """Count one search or question that was refused because nothing of its text is understood."""
        self._query_warnings.labels("nothing_understood").inc()

    def show_connections(self, count: int) -> None:
        """Set the gauge of open connections."""
        self._connections.set(count)

    def show_encoders(self, count: int) -> None:
        """Set the gauge of streams and clips that are being made."""
        self._encoders.set(count)

    def show_search_processes(self, count: int) -> None:
        """Set the gauge of processes that answer searches."""
        self._search_processes.set(count)

    def watch_searches(self, waiting: Callable[[], int], running: Callable[[], int]) -> None:
        """Let the gauges of searches show what two functions count when the metrics are rendered."""
        self._waiting_searches.set_function(waiting)
        self._running_searches.set_function(running)

    def observe_connection_end(self, reason: ConnectionEnding) -> None:
        """Count a connection that the server turned away or ended."""
        self._connection_ends.labels(reason).inc()

    def observe_text_call(self, texts: int, searches: int) -> None:
        """Count one call of the text encoder, its texts and the searches that share it."""
        self._text_texts.observe(texts)
        self._text_searches.observe(searches)

    def observe_vector_call(self, searches: int) -> None:
        """Count one call of the vector index, and the searches that share it."""
        self._vector_searches.observe(searches)

    def observe_away(self, what: str) -> None:
        """Count one request that failed since the server of the `vectors` or the `store` did not answer."""
        self._away.labels(what).inc()

    def observe_match_call(self, pairs: int, searches: int) -> None:
        """Count one call of the matching head, its pairs and the searches that share it."""
        self._match_pairs.observe(pairs)
        self._match_searches.observe(searches)

    def observe_row_cache(self, table: str, hits: int, misses: int) -> None:
        """Count rows that a search asked for, and whether they were in memory."""
        self._cached_rows.labels(table, "hit").inc(hits)
        self._cached_rows.labels(table, "miss").inc(misses)

    def watch_row_cache(self, num_bytes: Callable[[], int]) -> None:
        """Let the gauge of the memory of rows show what a function counts when the metrics are rendered."""
        self._cached_bytes.set_function(num_bytes)

    def observe_reload(self, loaded: bool) -> None:
        """Count a new snapshot that was loaded or refused."""
        self._reloads.labels("loaded" if loaded else "refused").inc()

    def show_snapshot(self, number: int, num_videos: int, num_segments: int) -> None:
        """Set the gauges of the snapshot that is served."""
        self._snapshot.set(number)
        self._videos.set(num_videos)
        self._segments.set(num_segments)

    def render(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self.registry)
