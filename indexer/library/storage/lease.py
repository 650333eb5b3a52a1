"""The right to write a library in an object store: one process in the world has it at a time.

A lease is an object that its holder writes again every few seconds. Another process takes it over when it has
not changed for some time, or when its holder was a process of the same computer that has ended. Each holder
has a greater token than the one before. What a holder that was taken over still does, a process that was
paused for instance, must fail: see `indexer.library.storage.objects`.
"""

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from indexer.library.errors import BusyError, StoreAwayError
from indexer.library.storage.base import ChangedError
from indexer.library.storage.processes import has_ended, this_place

LEASE_FILE = "LEASE"
#: A holder writes the lease this often; another process waits this long without a change.
BEAT_SECONDS, EXPIRY_SECONDS = 4.0, 20.0
_POLL_SECONDS = 0.5
#: How often to try to take it while others take it, too.
_TRIES = 5


class MarkedFiles(Protocol):
    """What a lease needs of a storage; see `Storage`."""

    def read_marked(self, path: Path) -> tuple[bytes, str] | None:
        """The content of a file and its mark; None: there is none."""
        ...

    def write_if(self, path: Path, data: bytes, mark: str | None) -> str:
        """See `Storage`."""
        ...


@dataclass(frozen=True)
class LeaseState:
    """The content of the object.

    Attributes:
        token: how many have held it, the holder included.
        beat: how often the holder has written it.
        holder: the number of its process; 0: nobody holds it.
        place: where that number means this process, see `this_place`.
    """

    token: int
    beat: int
    holder: int
    place: str


class WriterLease:
    """A lease that this process holds, and writes again in the background.

    Args:
        files: where the object is.
        path: the object.
        library: what to call the library in messages.
    """

    def __init__(self, files: MarkedFiles, path: Path, library: Path) -> None:
        self._files, self._path, self._library = files, path, library
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._state, self._mark = self._take()
        self._beaten_at = _now()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._thread.start()

    @property
    def token(self) -> int:
        """The holder's token: greater than those of all holders before."""
        return self._state.token

    def check(self) -> None:
        """Make sure that this process holds the lease, and that nobody takes it over at once.

        Raises:
            BusyError: another process has taken it over.
            StoreAwayError: the store cannot be reached.
        """
        with self._lock:
            if _now() - self._beaten_at > EXPIRY_SECONDS / 2:
                self._beat()

    def release(self) -> None:
        """Let the next process take it without waiting. If that fails, it waits until the lease expires."""
        self._stop.set()
        self._thread.join()
        free = LeaseState(self._state.token, self._state.beat + 1, 0, "")
        with contextlib.suppress(StoreAwayError, ChangedError):
            self._files.write_if(self._path, _to_bytes(free), self._mark)

    def _run(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            with self._lock, contextlib.suppress(StoreAwayError, BusyError):
                self._beat()

    def _beat(self) -> None:
        state = LeaseState(self._state.token, self._state.beat + 1, self._state.holder, self._state.place)
        try:
            self._mark = self._files.write_if(self._path, _to_bytes(state), self._mark)
        except ChangedError as error:
            self._stop.set()
            raise BusyError(
                f"another process writes the library at {self._library} now, for this one has not reached it "
                f"for {_now() - self._beaten_at:.0f} seconds: run the command again when that one is done"
            ) from error
        self._state, self._beaten_at = state, _now()

    def _take(self) -> tuple[LeaseState, str]:
        for _ in range(_TRIES):
            found = self._files.read_marked(self._path)
            before, mark = (None, None) if found is None else (_from_bytes(found[0]), found[1])
            is_held = before is not None and before.holder and not _has_ended(before)
            if before is not None and is_held and not self._is_abandoned(mark):
                raise BusyError(
                    f"the library at {self._library} is being written by {_shown(before)}: "
                    "wait until it is done"
                )
            state = LeaseState(before.token + 1 if before else 1, 0, os.getpid(), this_place())
            with contextlib.suppress(ChangedError):
                return state, self._files.write_if(self._path, _to_bytes(state), mark)
        raise BusyError(f"the library at {self._library} is taken by several processes at once: try again")

    def _is_abandoned(self, mark: str | None) -> bool:
        """Whether the object does not change for as long as a holder may need."""
        deadline = _now() + EXPIRY_SECONDS
        while _now() < deadline:
            time.sleep(_POLL_SECONDS)
            found = self._files.read_marked(self._path)
            if found is None or found[1] != mark:
                return False
        return True


def lease_holder(files: MarkedFiles, path: Path) -> str | None:
    """Which process holds a lease and goes on writing it, such as "process 12 on 'host'"; None: none does.

    It may take as long as a holder takes to write the lease twice.

    Raises:
        StoreAwayError: the store cannot be reached.
    """
    found = files.read_marked(path)
    state = None if found is None else _from_bytes(found[0])
    if found is None or state is None or not state.holder or _has_ended(state):
        return None
    deadline = _now() + 2 * BEAT_SECONDS
    while _now() < deadline:
        time.sleep(_POLL_SECONDS)
        now = files.read_marked(path)
        if now is not None and now[1] != found[1]:
            later = _from_bytes(now[0])
            return _shown(later) if later is not None and later.holder else None
    return None


def _shown(state: LeaseState) -> str:
    host = state.place.partition(" ")[0]
    return f"process {state.holder} on {host!r}"


def _has_ended(state: LeaseState) -> bool:
    """Whether the holder was a process of this computer, and is not there any more."""
    is_other = state.place == this_place() and state.holder != os.getpid()
    return is_other and has_ended(state.holder)


def _to_bytes(state: LeaseState) -> bytes:
    return json.dumps(asdict(state)).encode() + b"\n"


def _from_bytes(data: bytes) -> LeaseState | None:
    """The state; None where the object is none, so that it is written anew."""
    try:
        state = LeaseState(**json.loads(data))
        is_right = (
            all(type(n) is int and n >= 0 for n in (state.token, state.beat, state.holder))
            and type(state.place) is str
        )
    except (ValueError, TypeError):
        return None
    return state if is_right else None


#: Seconds that pass while the computer sleeps, too: others take the lease over then.
_now: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME)  # noqa: E731
