"""Waits for changes in folders: by the system's events, or by looking again where there are none."""

import threading
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from watchfiles import Change, watch

from indexer.place import place_error
from indexer.scan import FileFacts, Scan, SubtitleFile, scan
from model.runtime.errors import ReelfindError
from model.runtime.remote.path import RemotePath

#: Events that come within this time of each other are told together.
_DEBOUNCE_MS = 1500
_STEP_MS = 200
#: How often waiting ends without events, so that a root that has gone is noticed.
_TICK_MS = 1000


class LostError(ReelfindError):
    """A folder that is watched is not there any more, or is another one: what happened in it is unknown."""


class Changes(Protocol):
    """Tells what has changed since it was asked before."""

    def check(self) -> None:
        """Check that the folders are still those that are watched.

        Raises:
            LostError: one of them is not.
        """

    def next(self) -> set[Path]:
        """Wait for changes, for some seconds at most.

        Returns:
            Absolute paths of files and folders that are new, changed or gone; empty where nothing is.

        Raises:
            LostError: one of the folders is not there any more.
            InputError: as `scan`.
        """


class EventChanges:
    """Changes as the system tells them. What happens between two calls of `next` is not lost."""

    def __init__(self, roots: Sequence[Path], stop: threading.Event) -> None:
        """Begin to watch.

        Raises:
            OSError: the system cannot watch these folders, for instance because of its limit.
        """
        self._roots = {root: _identity(root) for root in roots}
        self._events: Generator[set[tuple[Change, str]], None, None] = watch(
            *roots,
            watch_filter=None,
            debounce=_DEBOUNCE_MS,
            step=_STEP_MS,
            stop_event=stop,
            rust_timeout=_TICK_MS,
            yield_on_timeout=True,
            raise_interrupt=False,
            ignore_permission_denied=True,
            force_polling=False,
        )
        self._ready: set[tuple[Change, str]] | None = next(self._events, set())

    def check(self) -> None:
        """See `Changes`."""
        for root, identity in self._roots.items():
            if _identity(root) != identity:
                raise LostError(f"{root} is another folder or disk now")

    def next(self) -> set[Path]:
        """See `Changes`."""
        self.check()
        events, self._ready = self._ready, None
        return {Path(path) for _, path in (next(self._events, set()) if events is None else events)}

    def close(self) -> None:
        """Stop watching."""
        self._events.close()


class PolledChanges:
    """Changes that two scans tell, one some seconds after the other."""

    def __init__(
        self,
        roots: Sequence[Path],
        seconds: float,
        stop: threading.Event,
        exclude: Sequence[str],
        include: Sequence[str],
    ) -> None:
        """Look for the first time."""
        self._roots, self._seconds, self._stop = roots, seconds, stop
        self._exclude, self._include = exclude, include
        self._before = self._look()

    def check(self) -> None:
        """See `Changes`."""
        for root in self._roots:
            _identity(root)

    def next(self) -> set[Path]:
        """See `Changes`."""
        self._stop.wait(self._seconds)
        if self._stop.is_set():
            return set()
        before, self._before = self._before, self._look()
        return {
            path for path in before.keys() | self._before.keys() if before.get(path) != self._before.get(path)
        }

    def close(self) -> None:
        """There is nothing to stop."""

    def _look(self) -> Mapping[Path, object]:
        scanned = scan(self._roots, exclude=self._exclude, include=self._include)
        for path, reason in scanned.problems:
            if path in self._roots:
                raise LostError(f"{path}: {reason}")
        return state_of(scanned)


def state_of(scanned: Scan) -> dict[Path, tuple[FileFacts, tuple[SubtitleFile, ...]]]:
    """What tells whether a file, or what is beside it, has changed."""
    return {path: (facts, scanned.subtitles.get(path, ())) for path, facts in scanned.facts.items()}


def _identity(root: Path) -> tuple[int, int]:
    if isinstance(root, RemotePath):
        # Whether it can be reached is found out by listing it.
        return 0, 0
    try:
        stat = root.stat()
    except (OSError, ValueError) as error:
        raise LostError(f"{root} cannot be reached: {place_error(error)}") from error
    return stat.st_dev, stat.st_ino
