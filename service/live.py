"""The library that is served, and its reload while requests run.

A request takes `LiveLibrary.searcher` once and keeps it. A reload replaces the reference, so requests in
flight finish on the old bundle and snapshot, which are freed with the last of them.
"""

import logging
import threading
import time
import weakref
from dataclasses import dataclass

from indexer.library.manifest import CURRENT, current_number, read_snapshot_manifest
from indexer.library.snapshot import Snapshot
from model.runtime.bundle import Bundle, default_bundle_path
from model.runtime.errors import BundleError, ReelfindError
from service.errors import NotReadyError, SnapshotRefusedError
from service.metrics import Metrics
from service.search.match_queue import MatchQueue
from service.search.searcher import Searcher
from service.settings import Settings

logger = logging.getLogger("reelfind")

# A snapshot that failed to load is tried again after this time, even if CURRENT is unchanged: disks recover.
_RETRY_SECONDS = 60.0
# Most text-frame pairs in one call of the matching head. On a CPU small calls are faster, because their
# tensors stay in its caches, and other searches get their turn sooner. A GPU needs large calls.
_MAX_PAIRS_CPU = 32
_MAX_PAIRS_GPU = 256


def open_bundle(settings: Settings) -> Bundle:
    """Open the bundle that the settings name.

    Raises:
        BundleError: the bundle cannot be read or run.
    """
    folder = settings.bundle or default_bundle_path()
    bundle = Bundle.open(
        folder,
        provider=settings.provider,
        threads=settings.threads,
        cache_dir=settings.engine_cache,
        max_pairs=_MAX_PAIRS_CPU if settings.provider == "cpu" else _MAX_PAIRS_GPU,
    )
    # Open the text encoder now: the first search need not wait for it, nor find a folder that has changed.
    bundle.encode_text(["a dog runs on a beach"])
    return bundle


def open_searcher(settings: Settings, match_queue: MatchQueue | None = None) -> Searcher:
    """Open the snapshot that CURRENT names, with its bundle.

    If the snapshot was made with the bundle of `match_queue`, that is used; otherwise the bundle that the
    settings name is opened.

    Raises:
        LibraryError: there is no snapshot, or it is damaged.
        BundleError: the bundle cannot be read, or the snapshot was made with another one.
    """
    snapshot = Snapshot.open(settings.library)
    if match_queue is None or match_queue.bundle.checksum != snapshot.bundle_checksum:
        # By now, the bundle's folder may hold the bundle that the library was made with.
        observe = None if match_queue is None else match_queue.observe
        match_queue = MatchQueue(open_bundle(settings), observe)
    bundle = match_queue.bundle
    if bundle.checksum != snapshot.bundle_checksum:
        raise BundleError(
            f"Snapshot {snapshot.number} of {settings.library} was made with another bundle "
            f"({snapshot.bundle_checksum[:12]}…) than {bundle.manifest.name} ({bundle.checksum[:12]}…). "
            "Set `bundle` to the one it was made with, or index again into a new library."
        )
    return Searcher(match_queue, snapshot, settings.max_candidates)


@dataclass(frozen=True)
class ReloadOutcome:
    """The number of the snapshot served after a reload, and whether it differs from the one before."""

    snapshot: int
    changed: bool


class LiveLibrary:
    """Holds the searcher that is served. Every method may be called from any thread."""

    def __init__(self, settings: Settings, bundle: Bundle, metrics: Metrics) -> None:
        self._settings = settings
        self._match_queue = MatchQueue(bundle, metrics.observe_match_call)
        # Also the queues of bundles served before, as long as searches in flight use them.
        self._match_queues = weakref.WeakSet([self._match_queue])
        self._metrics = metrics
        self._searcher: Searcher | None = None
        self._problem: str | None = "The library has not been read yet; try again in a moment."
        self._lock = threading.Lock()
        self._tried: tuple[int, ...] | None = None
        self._retry_at = 0.0

    @property
    def searcher(self) -> Searcher:
        """The searcher that answers now.

        Raises:
            NotReadyError: no snapshot is served; says why.
        """
        searcher = self._searcher
        if searcher is None:
            raise NotReadyError(self._problem or "No snapshot is loaded.")
        return searcher

    @property
    def problem(self) -> str | None:
        """Why the newest snapshot is not the one served, or None."""
        return self._problem

    def reload(self) -> ReloadOutcome:
        """Load the snapshot that CURRENT names, unless it is served already.

        Raises:
            SnapshotRefusedError: it cannot be served; the one before still is.
            NotReadyError: it cannot be served, and no other one is.
        """
        with self._lock:
            return self._reload()

    def poll(self) -> None:
        """Reload if CURRENT has changed since the last attempt. Failures are logged, not raised."""
        with self._lock:
            if self._signature() == self._tried and (
                self._problem is None or time.monotonic() < self._retry_at
            ):
                return
            problem_before = self._problem
            try:
                self._reload()
            except ReelfindError as error:
                if self._problem != problem_before:
                    logger.warning("%s", error)

    def close(self) -> None:
        """End the searches that wait for the matching head, because the process stops."""
        for match_queue in list(self._match_queues):
            match_queue.close()

    def _reload(self) -> ReloadOutcome:
        self._tried, self._retry_at = self._signature(), time.monotonic() + _RETRY_SECONDS
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
        self._searcher = loaded
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
        searcher = open_searcher(self._settings, self._match_queue)
        is_new = before is None or before.match_queue is not searcher.match_queue
        if is_new and "match" in searcher.bundle.capabilities:
            searcher.match_queue.warm()
        self._match_queue = searcher.match_queue
        self._match_queues.add(self._match_queue)
        return searcher

    def _signature(self) -> tuple[int, ...] | None:
        """Identifies the file CURRENT; changes whenever it is replaced. None if there is none."""
        try:
            stat = (self._settings.library / CURRENT).stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size
