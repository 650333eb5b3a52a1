"""Whether searches are answered: it tries one, and says what is degraded."""

import asyncio
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal, TypeVar

from model.runtime.remote.path import RemotePath
from service.errors import NotReadyError
from service.live import LiveLibrary
from service.search.results import SearchResult
from service.search.searcher import Searcher
from service.trial_search import trial_search

Result = TypeVar("Result")

#: A search that was answered counts for this long; probes that come more often cost nothing.
_VALID_SECONDS = 2.0
#: A probe waits this long for the search. Later ones wait for the same search: they never pile up.
PATIENCE_SECONDS = 5.0
#: Folders of videos that are looked for.
_MOST_ROOTS = 100
_REMEDIES = {
    "no_matcher": "the bundle has no match",
    "no_tokens": "the library stores no frame tokens",
}

#: What does not work as it should while searches are answered.
DegradationKind = Literal[
    "snapshot_refused",
    "not_reranked",
    "damaged_files",
    "damaged_rows",
    "curation_unreadable",
    "media_missing",
]


@dataclass(frozen=True)
class Degradation:
    """One thing that does not work; `detail` is for people."""

    kind: DegradationKind
    detail: str


class ReadinessProbe:
    """Tries a search through all stages, at most one at a time. Its methods belong to one event loop."""

    def __init__(self, live: LiveLibrary, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._live = live
        self._patience_seconds = patience_seconds
        # Weak references: a probe must not keep a snapshot that is no longer served.
        self._running: asyncio.Future[weakref.ref[Searcher]] | None = None
        self._started = 0.0
        self._answered: Callable[[], Searcher | None] = lambda: None
        self._answered_at = 0.0
        self._missing_media: list[str] = []

    async def check(self) -> tuple[int, list[Degradation]]:
        """The number of the snapshot that answers searches, and what is degraded.

        Raises:
            NotReadyError: searches are not answered.
            ReelfindError: the search failed.
        """
        searcher = self._live.searcher
        if searcher is not self._answered() or time.monotonic() - self._answered_at > _VALID_SECONDS:
            await self._try()
            searcher = self._answered() or self._live.searcher
        return searcher.snapshot.number, self._degradations(searcher)

    async def _try(self) -> None:
        """Search, or wait for the search that is running, until one is answered."""
        if self._running is None or self._running.done():
            self._started = time.monotonic()
            self._running = asyncio.wrap_future(_in_thread(self._search))
            # Perhaps no one waits any more when it fails.
            self._running.add_done_callback(lambda done: done.cancelled() or done.exception())
        running = self._running
        try:
            self._answered = await asyncio.wait_for(asyncio.shield(running), self._patience_seconds)
        except TimeoutError:
            waited = time.monotonic() - self._started
            raise NotReadyError(
                f"A search has had no answer for {waited:.0f} s: the service is overloaded, or a disk hangs."
            ) from None
        self._answered_at = time.monotonic()

    def _search(self) -> weakref.ref[Searcher]:
        """Try a search; refers to the searcher that answered."""
        searcher = self._live.searcher
        roots = searcher.snapshot.media_roots[:_MOST_ROOTS]
        # An object store would be asked with each probe.
        missing = [str(root) for root in roots if not isinstance(root, RemotePath) and not root.is_dir()]

        def ask(asked: Searcher) -> SearchResult:
            nonlocal searcher
            searcher = asked
            return trial_search(asked, self._patience_seconds / 2)

        self._live.search(searcher, ask)
        self._missing_media = missing
        return weakref.ref(searcher)

    def _degradations(self, searcher: Searcher) -> list[Degradation]:
        live = self._live
        found: list[Degradation] = []
        if live.problem is not None:
            found.append(Degradation("snapshot_refused", live.problem))
        if searcher.cannot_rerank is not None:
            found.append(
                Degradation("not_reranked", f"No search is re-ranked: {_REMEDIES[searcher.cannot_rerank]}.")
            )
        found += [Degradation("damaged_files", problem) for problem in live.damaged_files]
        found += [Degradation("damaged_rows", problem) for problem in live.damaged_reads]
        if searcher.snapshot.curation.problem is not None:
            found.append(Degradation("curation_unreadable", f"{searcher.snapshot.curation.problem}."))
        found += [
            Degradation("media_missing", f"The folder of videos {root} is not there: they cannot be played.")
            for root in self._missing_media
        ]
        return found


def _in_thread(search: Callable[[], Result]) -> Future[Result]:
    """Run in a thread of its own, which does not keep the process from ending if the disk hangs."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(search())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="reelfind-probe", daemon=True).start()
    return future
