"""Which file of a run on Ray is read next, or which span of a file that is cut."""

from collections import deque
from dataclasses import replace

from indexer.decode import FileUnreached, FileVerdict, StorageLimits
from indexer.engines.channel import Channel
from indexer.engines.ray_readings import Attempt, Reading
from indexer.engines.ray_spans import CutFile
from indexer.engines.writing import FileEnd
from indexer.library.records import SEARCHABLE
from indexer.plan import IndexTask

#: How often a file is read anew because an actor was lost, before it is left to the next run.
_MOST_LOSSES = 4


class NoMoreTasks:
    """The last of the tasks has been sent."""


class FileQueue:
    """The files that are left to read. One thread uses it.

    Args:
        tasks: where tasks come from, and `NoMoreTasks` after the last one.
        storage: how much of the library a file may take.
        most_ahead: how many spans of a file may be read from the first one on that is not stored.

    Attributes:
        cuts: the files of which spans are read or stored.
    """

    def __init__(
        self, tasks: Channel[IndexTask | NoMoreTasks], storage: StorageLimits, most_ahead: int
    ) -> None:
        self._tasks = tasks
        self._storage = storage
        self._most_ahead = most_ahead
        self.cuts: list[CutFile] = []
        self._has_all = False
        self._lost: deque[Attempt] = deque()
        self._again: deque[Attempt] = deque()
        #: Checksums of what this run has read, by size: its copies need not be decoded.
        self._read_now: dict[int, list[str]] = {}

    @property
    def is_empty(self) -> bool:
        """Whether no file is left, and none will come."""
        return self._has_all and not self._lost and not self._again and not self.cuts

    def next(self, *, is_alone: bool) -> Attempt | None:
        """The next file; None when there is none now.

        Args:
            is_alone: no other file is being read. Only then comes one that has made its process die: so the
                memory is free for it.
        """
        if self._lost:
            return self._lost.popleft()
        for cut in self.cuts:
            if (span := cut.next()) is not None:
                return span
        if not self._has_all:
            task = self._tasks.get_if_any()
            if isinstance(task, IndexTask):
                return Attempt(task)
            self._has_all = task is not None
        if self._has_all and self._again and is_alone and not self.cuts:
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

    def cut(self, reading: Reading, count: int) -> None:
        """Only the first span of a file is being read: others may read the other spans."""
        cut = CutFile(reading.attempt, count, self._most_ahead, self._storage.most_bytes)
        reading.attempt = replace(reading.attempt, cut=cut)
        self.cuts.append(cut)

    def read_whole(self, cut: CutFile, *, again: bool = False) -> None:
        """Read what is not stored of a file that was cut, as one.

        Args:
            cut: the file. What comes of its spans is not used any more.
            again: the process that read a span has died.
        """
        self.cuts.remove(cut)
        (self._again if again else self._lost).append(cut.as_whole(again=again))

    def died(self, reading: Reading) -> None:
        """Read a file again, after all others and alone: the process that read it has died."""
        # What of it is not sent is read again too.
        reading.is_lost = True
        attempt = reading.attempt
        self._again.append(replace(attempt, skip=reading.sent, kept=reading.kept, again=True))

    def lost(self, reading: Reading) -> FileEnd | None:
        """Read a file or a span again from where the writer has it: an actor is lost that read or encoded it.

        Returns:
            The end of the file, if it was lost too often: it may have been the cause.
        """
        reading.is_lost = True
        attempt = reading.attempt
        losses = attempt.losses + 1
        if losses >= _MOST_LOSSES:
            if attempt.cut is not None:
                self.cuts.remove(attempt.cut)
            reason = (
                f"is not read: {losses} times an actor of the Ray cluster was lost that read it: try again"
            )
            return FileEnd(FileUnreached(reason), None)
        following = replace(attempt, skip=reading.sent, kept=reading.kept, losses=losses)
        if attempt.cut is not None:
            attempt.cut.read_again(following)
        else:
            self._lost.append(following)
        return None
