"""The library that is served, and its reload while requests run.

A request takes `LiveLibrary.searcher` once and keeps it. A reload replaces the reference, so requests in
flight finish on the old bundle and snapshot, which are freed with the last of them.
"""

import logging
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from indexer.library.curated import CuratedSnapshot
from indexer.library.curation import Curation
from indexer.library.errors import AwayError, LibraryError
from indexer.library.manifest import (
    CURRENT,
    FileStamp,
    SnapshotManifest,
    current_number,
    published_number,
    read_snapshot_manifest,
)
from indexer.library.row_cache import RowCache
from indexer.library.snapshot import Snapshot
from indexer.library.storage.registry import storage_of
from model.runtime.bundle import Bundle, default_bundle_path
from model.runtime.cores import Cores
from model.runtime.errors import BundleError, ReelfindError
from service.bundles import bundle_folder
from service.errors import NotReadyError, SnapshotRefusedError
from service.metrics import Metrics
from service.reload_turn import ReloadTurn
from service.scrub import Scrub
from service.search.answering import warm_answer_head
from service.search.queues import CallObservers, SearchQueues
from service.search.results import AnswerResult, SearchResult
from service.search.searcher import Searcher
from service.settings import Settings
from service.trial_search import trial_search

logger = logging.getLogger("reelfind")

Result = TypeVar("Result")
Answered = TypeVar("Answered", SearchResult, AnswerResult)

# A snapshot that failed to load is tried again after this time, even if CURRENT is unchanged: disks recover.
_RETRY_SECONDS = 60.0
# Reads that fail make the service look for a new snapshot at most this often.
_RELOAD_PAUSE_SECONDS = 1.0
# Messages about reads that failed: how many are remembered, and for how long after the last time.
_MOST_MESSAGES = 100
_REMEMBERED_SECONDS = 600.0
# Most text-frame pairs in one call of the matching head. On a CPU small calls are faster, because their
# tensors stay in its caches, and other searches get their turn sooner. A GPU needs large calls.
_MAX_PAIRS_CPU = 32
_MAX_PAIRS_GPU = 256


def open_served_bundle(settings: Settings) -> Bundle:
    """Open the bundle of the snapshot that CURRENT names, or else the one that the settings name.

    Raises:
        BundleError: the bundle cannot be read or run.
    """
    try:
        manifest = read_snapshot_manifest(settings.library, published_number(settings.library))
        folder = bundle_folder(settings, manifest.bundle_checksum, manifest.bundle_name)
    except (LibraryError, BundleError):
        # Loading the snapshot says what is wrong.
        folder = None
    return open_bundle(settings, folder)


def open_bundle(settings: Settings, folder: Path | None = None) -> Bundle:
    """Open the bundle in a folder; None: the one that the settings name.

    Raises:
        BundleError: the bundle cannot be read or run.
    """
    bundle = Bundle.open(
        folder or settings.bundle or default_bundle_path(),
        provider=settings.provider,
        threads=settings.threads,
        cache_dir=settings.engine_cache,
        max_pairs=_MAX_PAIRS_CPU if settings.provider == "cpu" else _MAX_PAIRS_GPU,
    )
    # Open the text encoder now: the first search need not wait for it, nor find a folder that has changed.
    bundle.encode_text(["a dog runs on a beach"])
    return bundle


def open_searcher(
    settings: Settings,
    queues: SearchQueues | None = None,
    *,
    accept_damage: bool = False,
    curation: Curation | None = None,
    cache: RowCache | None = None,
) -> Searcher:
    """Open the snapshot that CURRENT names, as users have curated it, with its bundle.

    If the snapshot was made with the bundle of `queues`, these are used; otherwise its bundle is found by
    its checksum, see `bundle_folder`, and opened. With `accept_damage`, rows that are damaged are refused
    when they are read, not the whole snapshot. `curation` is the library's, where it is open already. `cache`
    keeps what is read; None: a new one does.

    Raises:
        LibraryError: there is no snapshot, or it is damaged.
        BundleError: the bundle cannot be found or read.
    """
    snapshot = Snapshot.open(settings.library, accept_damage=accept_damage)
    snapshot.keep_rows(RowCache(settings.row_cache_bytes) if cache is None else cache)
    if curation is not None:
        return searcher_of(settings, CuratedSnapshot.of(snapshot, curation.state()), queues)
    with closing(Curation(settings.library)) as opened:
        return searcher_of(settings, CuratedSnapshot.of(snapshot, opened.state()), queues)


def searcher_of(settings: Settings, snapshot: Snapshot, queues: SearchQueues | None = None) -> Searcher:
    """The searcher of a snapshot, with its bundle; see `open_searcher`.

    Raises:
        BundleError: the bundle cannot be found or read.
    """
    if queues is None or queues.bundle.checksum != snapshot.bundle_checksum:
        folder = bundle_folder(settings, snapshot.bundle_checksum, snapshot.manifest.bundle_name)
        bundle = open_bundle(settings, folder)
        if bundle.checksum != snapshot.bundle_checksum:
            raise BundleError(f"{folder} was replaced while it was opened: try again")
        if queues is None:
            queues = SearchQueues(bundle, shared_calls=settings.shared_calls)
        else:
            queues = queues.for_bundle(bundle)
    return Searcher(
        queues,
        snapshot,
        settings.max_candidates,
        settings.max_video_share,
        images_allowed=settings.image_queries,
    )


@dataclass(frozen=True)
class ReloadOutcome:
    """The number of the snapshot served after a reload, and whether it differs from the one before."""

    snapshot: int
    changed: bool


class LiveLibrary:
    """Holds the searcher that is served. Every method may be called from any thread.

    Attributes:
        curation: what users say of the library's videos, and what they keep out. Changes count at once.
        cores: what the threads of searches, and the calls that they share, take turns on.
    """

    def __init__(self, settings: Settings, bundle: Bundle, metrics: Metrics) -> None:
        self._settings = settings
        self.cores = Cores()
        observers = CallObservers(
            metrics.observe_text_call, metrics.observe_vector_call, metrics.observe_match_call
        )
        self._queues = SearchQueues(bundle, observers, shared_calls=settings.shared_calls, cores=self.cores)
        # Also the queues of bundles served before, as long as searches in flight use them.
        self._all_queues = weakref.WeakSet([self._queues])
        self._metrics = metrics
        #: It outlives snapshots: what is in files that the next one has too need not be read again.
        self._cache = RowCache(settings.row_cache_bytes, metrics.observe_row_cache)
        metrics.watch_row_cache(lambda: self._cache.num_bytes)
        self.curation = Curation(settings.library)
        self._searcher: Searcher | None = None
        #: Held while `_searcher` is replaced.
        self._replacing = threading.Lock()
        self._problem: str | None = "The library has not been read yet; try again in a moment."
        self._lock = threading.Lock()
        self._tried: str | None = None
        self._turn = ReloadTurn(settings.reload_spread_seconds)
        self._retry_at = 0.0
        self._reloaded_at = -_RELOAD_PAUSE_SECONDS
        #: What the scrub found: what is wrong with a file, and the stamp that it should have.
        self._damaged_files: dict[str, tuple[FileStamp, str]] = {}
        #: What searches and thumbnails of the snapshot that is served met, and when they last did.
        self._damaged_reads: dict[str, float] = {}
        self.scrub: Scrub | None = None
        if settings.scrub_hours:
            self.scrub = Scrub(
                settings.scrub_hours, self._served, self._note_checked, metrics.observe_scrubbed
            )
            self.scrub.start()

    @property
    def searcher(self) -> Searcher:
        """The searcher that answers now.

        Raises:
            NotReadyError: no snapshot is served; says why.
        """
        with self._replacing:
            if self._searcher is None:
                raise NotReadyError(self._problem or "No snapshot is loaded.")
            before = self._searcher.snapshot.curation.problem
            self._searcher = self.curated(self._searcher)
            problem = self._searcher.snapshot.curation.problem
            if problem not in (None, before):
                logger.error("%s", problem)
            return self._searcher

    def curated(self, searcher: Searcher) -> Searcher:
        """A searcher that was served, as users have curated its snapshot by now."""
        state = self.curation.state()
        if searcher.snapshot.curation is state:
            return searcher
        return replace(searcher, snapshot=CuratedSnapshot.of(searcher.snapshot, state))

    @property
    def problem(self) -> str | None:
        """Why the newest snapshot is not the one served, or None."""
        return self._problem

    @property
    def damaged_files(self) -> list[str]:
        """What is wrong with files of the snapshot that is served, as far as the scrub has read them."""
        served = self._served()
        files = served[1].files if served else {}
        damaged = self._damaged_files.copy()
        return [problem for name, (stamp, problem) in damaged.items() if files.get(name) == stamp]

    @property
    def damaged_reads(self) -> list[str]:
        """What could not be read of the snapshot that is served when someone asked, a short while ago."""
        since = time.monotonic() - _REMEMBERED_SECONDS
        return [message for message, met in self._damaged_reads.copy().items() if met >= since]

    def search(self, searcher: Searcher, ask: Callable[[Searcher], Answered]) -> Answered:
        """Let `searcher`, which was served a moment ago, answer a search or a question.

        If it meets something that cannot be read, a newer snapshot is loaded at once, if there is one, and
        answers in its place.

        Raises:
            AwayError: the server of the vectors, or the object store, does not answer.
            LibraryError: a table cannot be read, also of the newest snapshot.
        """
        try:
            result = ask(searcher)
        except AwayError as error:
            # Nothing is damaged, and a newer snapshot asks the same server.
            self._metrics.observe_away(error.what)
            raise
        except LibraryError as error:
            newer = self._newer(searcher, [str(error)])
            if newer is None:
                raise
            return ask(newer)
        # Another snapshot would not help if it is not the snapshot that cannot be read.
        damaged = [each for each in result.library_warnings if each.kind != "unreadable_curation"]
        if not damaged:
            return result
        newer = self._newer(searcher, [warning.message for warning in damaged])
        return result if newer is None else ask(newer)

    def read(self, read: Callable[[Searcher], Result]) -> Result:
        """Let the searcher that is served read something else; for the rest see `search`."""
        searcher = self.searcher
        try:
            return read(searcher)
        except AwayError as error:
            self._metrics.observe_away(error.what)
            raise
        except LibraryError as error:
            newer = self._newer(searcher, [str(error)])
            if newer is None:
                raise
            return read(newer)

    def reload(self) -> ReloadOutcome:
        """Load the snapshot that CURRENT names, unless it is served already.

        Raises:
            SnapshotRefusedError: it cannot be served; the one before still is.
            NotReadyError: it cannot be served, and no other one is.
        """
        with self._lock:
            return self._reload()

    def poll(self, *, in_turn: bool = False) -> None:
        """Reload if CURRENT has changed since the last attempt. Failures are logged, not raised.

        Args:
            in_turn: whether this service waits for its turn while it has a snapshot to answer from; see
                `ReloadTurn`.
        """
        with self._lock:
            now = time.monotonic()
            if self._signature() == self._tried and (self._problem is None or now < self._retry_at):
                return
            if in_turn and self._searcher is not None and not self._turn.has_come(now):
                return
            self._reload_quietly()

    def _newer(self, searcher: Searcher, messages: list[str]) -> Searcher | None:
        """The searcher of a newer snapshot, because a read of this one failed; None: there is none."""
        self._metrics.observe_damaged_read()
        with self._lock:
            if self._searcher is searcher:
                is_known = self._signature() == self._tried
                if not is_known or time.monotonic() - self._reloaded_at > _RELOAD_PAUSE_SECONDS:
                    self._reload_quietly()
                    self._reloaded_at = time.monotonic()
            if self._searcher is not searcher:
                return self._searcher
            for message in messages:
                if message in self._damaged_reads or len(self._damaged_reads) < _MOST_MESSAGES:
                    if message not in self._damaged_reads:
                        logger.error("%s", message)
                    self._damaged_reads[message] = time.monotonic()
        return None

    def _served(self) -> tuple[Path, SnapshotManifest] | None:
        searcher = self._searcher
        return None if searcher is None else (searcher.snapshot.library, searcher.snapshot.manifest)

    def _note_checked(self, name: str, stamp: FileStamp, problem: str | None) -> None:
        """Remember what the scrub found: rows of damaged files that have no checksums are refused."""
        with self._lock:
            known = self._damaged_files.pop(name, None)
            if problem is not None:
                self._damaged_files[name] = (stamp, problem)
                if known is None:
                    logger.error("%s", problem)
            if (problem is None) != (known is None) and self._searcher is not None:
                self._searcher.snapshot.distrust(self._damaged_names(self._searcher))
        self._metrics.show_damaged_files(len(self.damaged_files))

    def _damaged_names(self, searcher: Searcher) -> list[str]:
        files = searcher.snapshot.manifest.files
        return [name for name, (stamp, _) in self._damaged_files.items() if files.get(name) == stamp]

    def close(self) -> None:
        """End the scrub and the searches that wait for a model or an index, because the process stops."""
        if self.scrub is not None:
            self.scrub.close()
        for queues in list(self._all_queues):
            queues.close()
        self.curation.close()

    def _reload_quietly(self) -> None:
        """Reload; a failure is logged, unless it was before."""
        problem_before = self._problem
        try:
            self._reload()
        except ReelfindError as error:
            if self._problem != problem_before:
                logger.warning("%s", error)

    def _reload(self) -> ReloadOutcome:
        self._tried, self._retry_at = self._signature(), time.monotonic() + _RETRY_SECONDS
        self._turn.end()
        before = self._searcher
        try:
            loaded = self._load(before)
        except Exception as error:
            if isinstance(error, ReelfindError):
                problem = str(error)
            else:  # no fault of a new snapshot may stop the service
                problem = f"The newest snapshot cannot be read: {type(error).__name__}: {error}."
                logger.exception("a snapshot could not be loaded")
            self._problem = problem
            if before is None:
                raise NotReadyError(problem) from error
            self._metrics.observe_reload(loaded=False)
            raise SnapshotRefusedError(
                f"{problem} Snapshot {before.snapshot.number} is still served."
            ) from error
        self._problem = None
        if loaded is before:
            return ReloadOutcome(snapshot=loaded.snapshot.number, changed=False)
        files = loaded.snapshot.manifest.files
        found = {name: (files[name], problem) for name, problem in loaded.snapshot.damaged_files.items()}
        known = {name: damage for name, damage in self._damaged_files.items() if files.get(name) == damage[0]}
        self._damaged_files = known | found
        if self._damaged_files:
            loaded.snapshot.distrust(self._damaged_names(loaded))
        with self._replacing:
            self._searcher = loaded
        self._damaged_reads = {}
        self._metrics.show_damaged_files(len(self.damaged_files))
        self._metrics.observe_reload(loaded=True)
        snapshot = loaded.snapshot
        self._metrics.show_snapshot(snapshot.number, snapshot.num_videos, snapshot.num_segments)
        logger.info(
            "serving snapshot %d (videos: %d, segments: %d)",
            snapshot.number,
            snapshot.num_videos,
            snapshot.num_segments,
        )
        return ReloadOutcome(snapshot=snapshot.number, changed=True)

    def _load(self, before: Searcher | None) -> Searcher:
        library = self._settings.library
        number = current_number(library)
        # Compare manifests, not only numbers: the folder may hold another library by now.
        if (
            before
            and number is not None
            and read_snapshot_manifest(library, number) == before.snapshot.manifest
        ):
            return before
        # Damage is better than nothing, but not better than what is served.
        searcher = open_searcher(
            self._settings,
            self._queues,
            accept_damage=before is None,
            curation=self.curation,
            cache=self._cache,
        )
        is_new = before is None or before.queues is not searcher.queues
        if is_new and "match" in searcher.bundle.capabilities:
            searcher.match_queue.warm()
        if is_new and "answers" in searcher.bundle.capabilities:
            warm_answer_head(searcher.bundle)
        self._queues = searcher.queues
        self._all_queues.add(self._queues)
        if before is not None:
            # The first search of a snapshot waits for the disk: while this one does, the one before answers.
            with suppress(ReelfindError):
                trial_search(searcher, rerank=False)
        return searcher

    def _signature(self) -> str | None:
        """Identifies the file CURRENT; changes whenever it is replaced. None if there is none."""
        try:
            return storage_of(self._settings.library).mark(self._settings.library / CURRENT)
        except (OSError, AwayError):
            # What cannot be reached now has not changed.
            return self._tried
