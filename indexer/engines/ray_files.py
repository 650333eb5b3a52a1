"""Which file of a run on Ray is read next, and how far each file is."""

from collections import deque
from dataclasses import dataclass, replace
from typing import Any

from indexer.decode import FileUnreached, FileVerdict
from indexer.encode import SegmentLost
from indexer.engines.channel import Channel
from indexer.engines.writing import FileEnd
from indexer.library.records import SEARCHABLE
from indexer.plan import IndexTask

#: How often a file is read anew because an actor was lost, before it is left to the next run.
_MOST_LOSSES = 4


@dataclass(frozen=True)
class Attempt:
    """A file to read.

    Attributes:
        task: the file.
        skip: how many of its segments the writer has already.
        kept: how many of these are stored; the others were set aside.
        again: it was tried before, and its process died.
        losses: how often an actor was lost that read or encoded it.
    """

    task: IndexTask
    skip: int = 0
    kept: int = 0
    again: bool = False
    losses: int = 0

    @property
    def is_first(self) -> bool:
        """Whether the file was not begun before."""
        return not self.again and not self.losses


@dataclass(frozen=True)
class WaitingRow:
    """The row of a segment, which lies in the object store with others.

    Attributes:
        rows: refers to the list of rows that it is in.
        position: its position in that list.
        num_frames: how many frames it has.
        lost: why there is no row; None: there is.
    """

    rows: Any
    position: int
    num_frames: int
    lost: SegmentLost | None


class Reading:
    """A file that is being read, until its last segment is encoded.

    Attributes:
        attempt: the file.
        decoded: how many of its segments are decoded, with those that are skipped.
        encoded: how many of them are encoded.
        rows: those that are encoded and that nobody stores yet, in time order.
        numbered: the number of the next row that is stored.
        sent: how many segments the writer has, with those that are set aside.
        kept: how many of these are stored.
        end: how decoding ended; None as long as it goes on.
        has_died: the process that read it has died.
        is_lost: what comes of it is not used any more.
    """

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self.decoded = self.encoded = self.sent = attempt.skip
        self.rows: list[WaitingRow] = []
        self.numbered = self.kept = attempt.kept
        self.end: FileEnd | None = None
        self.has_died = False
        self.is_lost = False

    @property
    def is_encoded(self) -> bool:
        """Whether all that was decoded of it is encoded, and nothing more comes."""
        return (self.end is not None or self.has_died) and self.encoded == self.decoded

    @property
    def is_sent(self) -> bool:
        """Whether the writer has all that was encoded of it."""
        return self.sent == self.encoded


class NoMoreTasks:
    """The last of the tasks has been sent."""


class FileQueue:
    """The files that are left to read. One thread uses it.

    Args:
        tasks: where tasks come from, and `NoMoreTasks` after the last one.
    """

    def __init__(self, tasks: Channel[IndexTask | NoMoreTasks]) -> None:
        self._tasks = tasks
        self._has_all = False
        self._lost: deque[Attempt] = deque()
        self._again: deque[Attempt] = deque()
        #: Checksums of what this run has read, by size: its copies need not be decoded.
        self._read_now: dict[int, list[str]] = {}

    @property
    def is_empty(self) -> bool:
        """Whether no file is left, and none will come."""
        return self._has_all and not self._lost and not self._again

    def next(self, *, is_alone: bool) -> Attempt | None:
        """The next file; None when there is none now.

        Args:
            is_alone: no other file is being read. Only then comes one that has made its process die: so the
                memory is free for it.
        """
        if self._lost:
            return self._lost.popleft()
        if not self._has_all:
            task = self._tasks.get_if_any()
            if isinstance(task, IndexTask):
                return Attempt(task)
            self._has_all = task is not None
        if self._has_all and self._again and is_alone:
            return self._again.popleft()
        return None

    def known_sha256(self, task: IndexTask) -> tuple[str, ...]:
        """Checksums of the contents of a file's size that this run has read."""
        return tuple(self._read_now.get(task.size, ()))

    def finished(self, end: FileEnd) -> None:
        """Remember the content of a file that the writer has."""
        outcome = end.outcome
        if isinstance(outcome, FileVerdict) and outcome.verdict in SEARCHABLE:
            self._read_now.setdefault(outcome.bytes, []).append(outcome.sha256)

    def died(self, reading: Reading) -> None:
        """Read a file again, after all others and alone: the process that read it has died."""
        # What of it is not sent is read again too.
        reading.is_lost = True
        attempt = reading.attempt
        self._again.append(replace(attempt, skip=reading.sent, kept=reading.kept, again=True))

    def lost(self, reading: Reading) -> FileEnd | None:
        """Read a file again from where the writer has it: an actor is lost that read or encoded it.

        Returns:
            Its end, if it was lost too often: it may have been the cause.
        """
        reading.is_lost = True
        attempt = reading.attempt
        losses = attempt.losses + 1
        if losses >= _MOST_LOSSES:
            reason = (
                f"is not read: {losses} times an actor of the Ray cluster was lost that read it: try again"
            )
            return FileEnd(FileUnreached(reason), None)
        self._lost.append(replace(attempt, skip=reading.sent, kept=reading.kept, losses=losses))
        return None
