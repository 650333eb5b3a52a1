"""A process that answers searches for the server that has started it, and ends with it."""

import logging
import os
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import BinaryIO

from model.runtime.errors import ReelfindError
from model.runtime.tracing import span, tracing
from service.api.search_processes.call import Answer, Observed, Order
from service.api.search_processes.wire import packed, receive
from service.live import LiveLibrary, open_served_bundle
from service.memory import limit_blas_threads, limit_lance_threads, share_heaps
from service.metrics import Metrics
from service.search.pages import Pages
from service.settings import Settings
from service.trial_search import trial_search

logger = logging.getLogger("reelfind.search_process")

_EXPIRE_SECONDS = 60.0


class _SentMetrics(Metrics):
    """Metrics of calls, which the server counts."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._observed: list[Observed] = []

    def take(self) -> list[Observed]:
        """What was observed since the last call."""
        with self._lock:
            observed, self._observed = self._observed, []
        return observed

    def _note(self, method: str, *values: str | int) -> None:
        with self._lock:
            self._observed.append((method, values))

    def observe_text_call(self, texts: int, searches: int) -> None:
        """See `Metrics`."""
        self._note("observe_text_call", texts, searches)

    def observe_vector_call(self, searches: int) -> None:
        """See `Metrics`."""
        self._note("observe_vector_call", searches)

    def observe_match_call(self, pairs: int, searches: int) -> None:
        """See `Metrics`."""
        self._note("observe_match_call", pairs, searches)

    def observe_row_cache(self, table: str, hits: int, misses: int) -> None:
        """See `Metrics`."""
        self._note("observe_row_cache", table, hits, misses)


class _Searches:
    """Answers what the server sends."""

    def __init__(self, connection: socket.socket, orders: BinaryIO, settings: Settings) -> None:
        self._connection = connection
        self._orders = orders
        self._sending = threading.Lock()
        self._reloading = threading.Lock()
        self._metrics = _SentMetrics()
        self._pages = Pages()
        # The server reads the whole library for damage: once is enough. And where processes compute side by
        # side, calls of a model that take several threads each cost more, and are no faster.
        own = settings.model_copy(update={"scrub_hours": 0.0, "threads": settings.threads or 1})
        self._live = LiveLibrary(own, open_served_bundle(own), self._metrics)
        self._threads = ThreadPoolExecutor(settings.search_threads + 1, "reelfind-search")

    def run(self) -> None:
        """Answer until the server closes the connection."""
        self._live.poll()
        # The first search waits for the disk and the model: let it be nobody's.
        with suppress(ReelfindError):
            trial_search(self._live.searcher, rerank=False)
        threading.Thread(target=self._expire, daemon=True).start()
        self._send(0, None)
        while True:
            number, order = receive(self._orders)
            self._threads.submit(self._answer, number, order)

    def _answer(self, number: int, order: Order) -> None:
        answer = Answer(None, b"", [])
        try:
            with self._live.cores.taken(), span("search_process", parent=order.parent):
                answer = self._search(order)
        except ReelfindError:
            pass  # the server comes to the same, and says so
        except Exception:
            logger.exception("a search failed in a process of its own; the server answers it")
        self._send(number, replace(answer, observed=self._metrics.take()))

    def _search(self, order: Order) -> Answer:
        """The answer to a call, or none."""
        call = order.call
        searcher = self._live.searcher
        if call.page_token is not None:
            searcher = self._live.curated(self._pages.searcher_of(call.page_token, searcher, "/page_token"))
        elif searcher.mark != order.snapshot:
            self._reload()
            return Answer(None, b"", [])
        result, body = call.answer(searcher, self._live, self._pages)
        if result.library_warnings:
            # The server notes what is damaged, and looks for a newer snapshot.
            return Answer(None, b"", [])
        return Answer(replace(result, hits=[]), body, [])

    def _reload(self) -> None:
        """Load what the server serves, unless another thread does so already."""
        if self._reloading.acquire(blocking=False):
            threading.Thread(target=self._poll, daemon=True).start()

    def _poll(self) -> None:
        try:
            self._live.poll()
        finally:
            self._reloading.release()

    def _expire(self) -> None:
        while True:
            time.sleep(_EXPIRE_SECONDS)
            self._pages.expire()

    def _send(self, number: int, message: Answer | None) -> None:
        content = packed(number, message)
        with self._sending, suppress(OSError):  # `run` finds that the server is gone
            self._connection.sendall(content)


def main(descriptor: int) -> None:
    """Answer searches that come through the socket of this descriptor, until it is closed."""
    share_heaps()
    limit_lance_threads()
    limit_blas_threads()
    # What goes wrong here goes wrong in the server too, which logs it.
    logging.getLogger("reelfind").setLevel(logging.CRITICAL)
    logger.setLevel(logging.ERROR)
    logging.basicConfig()
    with socket.socket(fileno=descriptor) as connection, suppress(EOFError, ConnectionError):
        orders = connection.makefile("rb")
        _, settings = receive(orders)
        with tracing():
            _Searches(connection, orders, settings).run()
    # Not one thread more is waited for: nobody reads its answer.
    sys.stderr.flush()
    os._exit(0)
