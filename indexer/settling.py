"""Tells files that are still being written: they are looked at again before they are read.

A file counts as written when nothing of it has changed for some seconds: neither size nor times. How long
that was is told by its times, if they are of the past, and else by looking at it twice: a clock that is wrong
makes nobody wait for longer. The time of change counts beside that of modification, which tools that copy
files set back.
"""

import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from indexer.plan import IndexTask
from model.runtime.remote.path import RemotePath

#: How often files are looked at.
_LOOK_SECONDS = 0.2
#: How often longer than a file must be at rest it is waited for, after all others have been read.
_PATIENCE = 5.0
#: MP4 files get their index, without which nothing can be read, when they are done. Later than this after the
#: last change it is missing for good.
_INDEX_SECONDS = 60.0
_MP4 = frozenset([".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".insv", ".360", ".mj2", ".f4v"])
_MOST_BOXES = 10_000


@dataclass(frozen=True, slots=True)
class _Look:
    """What a file was like: size in bytes, and its times in nanoseconds since 1970."""

    bytes: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def at(cls, path: Path) -> "_Look | None":
        try:
            stat = path.stat()
        except (OSError, ValueError):
            return None
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)

    def age_seconds(self) -> float:
        """Seconds since the last change, by this computer's clock; negative for a time to come."""
        return time.time() - max(self.modified_ns, self.changed_ns) / 1e9


@dataclass
class _Waiting:
    """A file that is waited for: how it is, and since when (`time.monotonic`)."""

    task: IndexTask
    look: _Look
    since: float


class SettledTasks(Collection[IndexTask]):
    """The tasks of a run; those whose files are still being written come last, or are left out.

    It is iterated over once, and then waits for files: not for ever, and only after all other tasks.
    """

    def __init__(
        self,
        tasks: Sequence[IndexTask],
        settle_seconds: float,
        stop: threading.Event,
        on_unfinished: Callable[[IndexTask], None],
        known_sha256: Callable[[int], tuple[str, ...]] = lambda _: (),
    ) -> None:
        """Look at the files of all tasks.

        Args:
            tasks: the tasks; a task of which only texts are read does not wait.
            settle_seconds: how long a file must be at rest; 0: all are taken as they are.
            stop: set it to end waiting.
            known_sha256: for a size in bytes, the checksums of contents that need not be decoded again.
            on_unfinished: gets each task that is left out, in the thread that iterates.
        """
        self._settle_seconds = settle_seconds
        self._stop = stop
        self._on_unfinished = on_unfinished
        self._known_sha256 = known_sha256
        self._ready: list[IndexTask] = []
        self._waiting: list[_Waiting] = []
        for task in tasks:
            # What is read by ranges is there only when it is whole.
            may_be_written = task.kept_mtime_ns is None and not isinstance(task.path, RemotePath)
            look = _Look.at(task.path) if settle_seconds and may_be_written else None
            if look is None or (look.bytes == task.size and self._was_at_rest(task.path, look)):
                self._ready.append(task)
            else:
                self._waiting.append(_Waiting(task, look, time.monotonic()))

    def __len__(self) -> int:
        return len(self._ready) + len(self._waiting)

    def __contains__(self, task: object) -> bool:
        return task in self._ready or any(waiting.task == task for waiting in self._waiting)

    def __iter__(self) -> Iterator[IndexTask]:
        yield from self._ready
        waiting, patience_ends = self._waiting, time.monotonic() + _PATIENCE * self._settle_seconds
        while waiting and not self._stop.is_set():
            still = []
            for file in waiting:
                if self._is_settled(file):
                    yield self._as_found(file)
                else:
                    still.append(file)
            waiting = still
            if time.monotonic() >= patience_ends:
                break
            self._stop.wait(_LOOK_SECONDS if waiting else 0)
        for file in waiting if not self._stop.is_set() else ():
            self._on_unfinished(file.task)

    def _was_at_rest(self, path: Path, look: _Look) -> bool:
        """Whether the file's times say that it is written."""
        age = look.age_seconds()
        return age >= _INDEX_SECONDS or (age >= self._settle_seconds and not _lacks_index(path))

    def _is_settled(self, file: _Waiting) -> bool:
        """Whether a file may be read: at rest for long enough, or gone, which its decoder tells."""
        look, now = _Look.at(file.task.path), time.monotonic()
        if look is None:
            return True
        if look != file.look:
            file.look, file.since = look, now
            return False
        if now - file.since < self._settle_seconds:
            return False
        return not (0 <= look.age_seconds() < _INDEX_SECONDS and _lacks_index(file.task.path))

    def _as_found(self, file: _Waiting) -> IndexTask:
        """The task with the file's size now. If that is another one, its content is too."""
        size = file.look.bytes
        if size == file.task.size:
            return file.task
        return replace(file.task, size=size, known_sha256=self._known_sha256(size))


def _lacks_index(path: Path) -> bool:
    """Whether a file of the MP4 family has media, but not yet the box `moov` that says where what is."""
    if path.suffix.lower() not in _MP4:
        return False
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start, names = 0, set()
            for _ in range(_MOST_BOXES):
                file.seek(start)
                head = file.read(16)
                if len(head) < 8:
                    break
                names.add(head[4:8])
                length = int.from_bytes(head[:4], "big")
                if length == 1:
                    length = int.from_bytes(head[8:16], "big")
                if length < 8 or start + length > size:  # to the end of the file, or beyond what is written
                    break
                start += length
    except (OSError, ValueError):
        return False
    return b"moov" not in names and bool(names & {b"ftyp", b"mdat"})
