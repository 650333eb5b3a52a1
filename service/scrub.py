"""Reads the files of the served snapshot again and again, slowly, and compares them with its manifest.

What is read for a search is compared with checksums of rows; the scrub finds damage in what no search reads,
and in rows that have no checksums.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from indexer.library.errors import AwayError
from indexer.library.manifest import FileStamp, SnapshotManifest
from indexer.library.storage.registry import storage_of

logger = logging.getLogger("reelfind")

#: A small library is read at this rate, and then rests until the next round.
_LEAST_BYTES_PER_SECOND = 4 << 20
_LONGEST_WAIT_SECONDS = 5.0
#: After a disk was slow, at most this much time is made up for at full speed.
_BEHIND_SECONDS = 1.0


@dataclass(frozen=True)
class ScrubState:
    """How far the scrub is.

    Attributes:
        round_hours: the time in which every file is read once.
        files: the files of the snapshot, and how many of them this round has read; likewise their bytes.
        finished: when a round last read the last file; None: not yet.
    """

    round_hours: float
    files: int
    files_checked: int
    bytes: int
    bytes_checked: int
    finished: datetime | None


#: Where the library is, and the manifest of the snapshot that is served; None while none is.
Served = Callable[[], tuple[Path, SnapshotManifest] | None]


class Scrub:
    """A thread that reads all files of what is served within `round_hours`, at a steady rate."""

    def __init__(
        self,
        round_hours: float,
        served: Served,
        on_checked: Callable[[str, FileStamp, str | None], None],
        on_read: Callable[[int], None] = lambda _bytes: None,
    ) -> None:
        """Nothing is read until `start`.

        Args:
            round_hours: the time of a round, more than 0.
            served: what to read.
            on_checked: called with the name of each file read, the stamp that it should have, and what is
                wrong with it.
            on_read: called with the number of bytes after each block.
        """
        self._round_hours = round_hours
        self._served = served
        self._on_checked, self._on_read = on_checked, on_read
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reelfind-scrub", daemon=True)
        #: What this round has read. Snapshots share most files: a new one does not begin a new round.
        self._checked: dict[str, FileStamp] = {}
        self._finished: datetime | None = None

    def start(self) -> None:
        """Begin the first round."""
        self._thread.start()

    def close(self) -> None:
        """End, after the block that is being read."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_LONGEST_WAIT_SECONDS)

    @property
    def state(self) -> ScrubState:
        """How far the scrub is now."""
        served = self._served()
        files = served[1].files if served else {}
        checked = self._checked.copy()
        done = [stamp.bytes for name, stamp in files.items() if checked.get(name) == stamp]
        return ScrubState(
            round_hours=self._round_hours,
            files=len(files),
            files_checked=len(done),
            bytes=sum(stamp.bytes for stamp in files.values()),
            bytes_checked=sum(done),
            finished=self._finished,
        )

    def _run(self) -> None:
        while not self._stop.is_set():
            started = time.monotonic()
            try:
                self._round()
            except Exception:
                logger.exception("the scrub failed; it begins again in %g hours", self._round_hours)
            self._stop.wait(max(0.0, started + self._round_hours * 3600 - time.monotonic()))

    def _round(self) -> None:
        self._checked = {}
        while not self._stop.is_set():
            served = self._served()
            if served is None:
                self._stop.wait(_LONGEST_WAIT_SECONDS)
                continue
            library, manifest = served
            left = [item for item in manifest.files.items() if self._checked.get(item[0]) != item[1]]
            if not left:
                self._finished = datetime.now(UTC)
                return
            total = sum(stamp.bytes for stamp in manifest.files.values())
            rate = max(_LEAST_BYTES_PER_SECOND, total / (self._round_hours * 3600))
            name, stamp = left[0]
            try:
                problem = self._problem(library / name, stamp, rate)
            except AwayError:
                # Nothing is known of the file until the store is back.
                self._stop.wait(_LONGEST_WAIT_SECONDS)
                continue
            if self._stop.is_set():
                return
            still_served = self._served()
            # What was removed meanwhile, because another snapshot took its place, is no damage.
            if problem is None or (still_served is not None and still_served[1].files.get(name) == stamp):
                self._on_checked(name, stamp, problem)
            self._checked[name] = stamp

    def _problem(self, path: Path, stamp: FileStamp, bytes_per_second: float) -> str | None:
        """What is wrong with a file; None: nothing, or the scrub is to stop."""
        digest = hashlib.sha256()
        size = 0
        due = time.monotonic()
        try:
            for block in storage_of(path).blocks(path):
                digest.update(block)
                size += len(block)
                self._on_read(len(block))
                # The time of reading counts: a round must end in its time.
                due = max(due + len(block) / bytes_per_second, time.monotonic() - _BEHIND_SECONDS)
                if self._stop.wait(max(0.0, due - time.monotonic())):
                    return None
        except OSError as error:
            return f"{path} cannot be read: {error.strerror}"
        if size != stamp.bytes:
            return f"{path} is damaged: {size} bytes, expected {stamp.bytes}"
        return None if digest.hexdigest() == stamp.sha256 else f"{path} is damaged: its SHA-256 differs"
