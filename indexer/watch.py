"""Indexes files as they come: all at the start and now and then, and in between what changes."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from indexer.changes import Changes, EventChanges, PolledChanges
from indexer.events import Event, IndexSummary
from indexer.file_systems import silent_file_system
from indexer.media_kinds import EXTENSIONS
from indexer.options import IndexOptions
from indexer.run import index_paths, starting_decoder
from indexer.scan import Scan, media_root, scan_changes
from model.runtime.bundle import Bundle
from model.runtime.errors import InputError, ReelfindError
from model.runtime.remote.path import RemotePath
from model.runtime.tracing import span

#: How long to wait after a failure, the first time and at most; it doubles from one to the next.
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 300.0


@dataclass(frozen=True)
class WatchOptions:
    """How to watch.

    Attributes:
        poll: look again and again instead of waiting for the system's events; None: where there are none.
        poll_seconds: how often to look then.
        rescan_hours: how often all folders are searched, whatever events say.

    Raises:
        InputError: a value is invalid; `field` names it.
    """

    poll: bool | None = None
    poll_seconds: float = 30.0
    rescan_hours: float = 6.0

    def __post_init__(self) -> None:
        for field in ("poll_seconds", "rescan_hours"):
            if not getattr(self, field) > 0:
                raise InputError(f"{field} is {getattr(self, field)}: it must be more than 0", field=field)


@dataclass(frozen=True)
class Watching:
    """Folders are watched now; `polled` says why by looking again and again; None: by the system's events."""

    roots: tuple[Path, ...]
    polled: str | None


@dataclass(frozen=True)
class Gone:
    """A file or a folder that was there is gone, or has another name now."""

    path: Path


@dataclass(frozen=True)
class RunDone:
    """A run has ended; `changed` says of how many paths, None: of all."""

    changed: int | None
    summary: IndexSummary


@dataclass(frozen=True)
class Trouble:
    """A run has failed; the next one begins after so many seconds, with all folders."""

    reason: str
    seconds: float


WatchEvent = Event | Watching | Gone | RunDone | Trouble


def watch_paths(
    paths: Sequence[Path | str],
    library: Path | str,
    bundle: Bundle,
    options: IndexOptions,
    watching: WatchOptions,
    on_event: Callable[[WatchEvent], None],
    stop: threading.Event,
) -> None:
    """Index files in folders as they come, until `stop` is set.

    What fails is tried again, with all folders, after a pause that grows: a share that is lost, a full disk,
    another process that writes the library.

    Args:
        paths: existing files and folders, and addresses of both.
        library: the library's folder; created when there is a video.
        bundle: the bundle, which stays loaded.
        options: how to index.
        watching: how to watch.
        on_event: receives events, from one thread at a time.
        stop: ends the run in progress, which keeps and publishes what is encoded.

    Raises:
        InputError: a path does not exist when it begins.
    """
    roots = []
    for path in paths:
        try:
            roots.append(media_root(path))
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(f"{path} does not exist: name files or folders that do") from error
    watcher = _Watcher(tuple(roots), Path(library), bundle, options, watching, on_event, stop)
    pause = _FIRST_PAUSE
    while not stop.is_set():
        try:
            for _ in watcher.rounds():
                pause = _FIRST_PAUSE
        except (ReelfindError, OSError) as error:
            on_event(Trouble(" ".join(str(error).split()), pause))
            stop.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


class _Watcher:
    def __init__(
        self,
        roots: tuple[Path, ...],
        library: Path,
        bundle: Bundle,
        options: IndexOptions,
        watching: WatchOptions,
        on_event: Callable[[WatchEvent], None],
        stop: threading.Event,
    ) -> None:
        self._roots, self._library, self._bundle = roots, library, bundle
        self._options, self._watching = options, watching
        #: The library may be in a folder that is watched: what is written there is no news.
        self._own = library.resolve()
        self._on_event, self._stop = on_event, stop
        #: Paths to look at again, and from when on (`time.monotonic`).
        self._again: set[Path] = set()
        self._again_at = 0.0
        self._again_pause = _FIRST_PAUSE

    def rounds(self) -> Iterator[None]:
        """Watch and index; yields after each run that has come to its end."""
        with self._changes() as changes:
            self._run(None)
            yield
            rescan_at = time.monotonic() + self._watching.rescan_hours * 3600
            while not self._stop.is_set():
                changed = changes.next()
                if time.monotonic() >= self._again_at:
                    changed |= self._again
                if time.monotonic() >= rescan_at:
                    self._run(None)
                    rescan_at = time.monotonic() + self._watching.rescan_hours * 3600
                elif changed and not self._stop.is_set():
                    self._look_at(changed, changes)
                else:
                    continue
                yield

    def _look_at(self, changed: set[Path], changes: Changes) -> None:
        changed = {path for path in changed if not path.is_relative_to(self._own)}
        scanned = scan_changes(
            changed, self._roots, exclude=self._options.exclude, include=self._options.include
        )
        # What was looked at was there: a root that has gone meanwhile takes nothing along.
        changes.check()
        gone = [path for path in scanned.covered if not _is_there(path)]
        if not scanned.files and not gone and not scanned.left_out:
            return
        for path in gone:
            if path.suffix.lower() in EXTENSIONS or not path.suffix:
                self._on_event(Gone(path))
        self._run(scanned, len(changed))

    def _run(self, scanned: Scan | None, changed: int | None = None) -> None:
        """Index what a scan has found; None: all."""
        with span("index"), starting_decoder(self._options) as starting:
            summary = index_paths(
                self._roots,
                self._library,
                self._bundle,
                self._options,
                self._on_event,
                self._stop,
                starting=starting,
                scanned=scanned,
            )
        self._note(summary)
        self._on_event(RunDone(changed, summary))

    def _note(self, summary: IndexSummary) -> None:
        """Look again at what was not read, soon at first and then less often."""
        left = {*summary.still_written, *(path for path, _ in summary.not_reached)}
        if left <= self._again:
            self._again_pause = min(2 * self._again_pause, _LONGEST_PAUSE)
        else:
            self._again_pause = _FIRST_PAUSE
        self._again, self._again_at = left, time.monotonic() + self._again_pause

    @contextmanager
    def _changes(self) -> Iterator[Changes]:
        changes, polled = self._open()
        self._on_event(Watching(self._roots, polled))
        try:
            yield changes
        finally:
            changes.close()

    def _open(self) -> tuple[EventChanges | PolledChanges, str | None]:
        reason = None
        if self._watching.poll is None:
            kind = next(filter(None, map(silent_file_system, self._roots)), None)
            reason = None if kind is None else f"a file system of the type {kind} tells no changes"
            if any(isinstance(root, RemotePath) for root in self._roots):
                reason = "an object store tells no changes"
        elif self._watching.poll:
            reason = "as it was asked for"
        if reason is None:
            try:
                return EventChanges(self._roots, self._stop), None
            except (OSError, RuntimeError) as error:
                if any(not root.exists() for root in self._roots):
                    raise
                reason = f"the system cannot watch so much ({error})"
        polled = PolledChanges(
            self._roots,
            self._watching.poll_seconds,
            self._stop,
            self._options.exclude,
            self._options.include,
        )
        return polled, reason


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except (OSError, ValueError):
        return False
    return True
