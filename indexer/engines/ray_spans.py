"""A long file that is read in spans, by several decoders of a run on Ray.

Spans are read and encoded in any order. They are stored in the order of time: a span is stored when it is
encoded, and all before it is stored. Until then its rows wait in the object store, so only so many spans may
be read ahead of the first one that is not stored.

Spans give what one reader of the whole file gives only where nothing in them depends on what was read before.
Where that is not sure, the file is read again as a whole, after what is stored: see `SpanRead`.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from indexer.engines.ray_readings import Attempt, Reading, WaitingRow
from indexer.engines.writing import FileEnd


class CutFile:
    """A file and its spans.

    Args:
        attempt: the file, of which the first span is being read.
        count: how many spans it has.
        most_ahead: how many spans may be read from the first one on that is not stored.
        most_bytes: how much of the library a file of a size may take, see `StorageLimits`.

    Attributes:
        sent: how many segments the writer has, with those that are set aside.
        kept: how many of these are stored.
    """

    def __init__(
        self, attempt: Attempt, count: int, most_ahead: int, most_bytes: Callable[[int], float]
    ) -> None:
        self.count = count
        self.sent = self.kept = 0
        self._attempt = attempt
        self._most_ahead = most_ahead
        self._most_bytes = most_bytes
        self._unread = {span: self._span(span) for span in range(1, count)}
        self._encoded: dict[int, Reading] = {}
        self._front = 0
        self._stored_bytes = 0
        self._first: Reading | None = None

    def _span(self, number: int) -> Attempt:
        return replace(self._attempt, cut=self, span=number)

    @property
    def has_unread(self) -> bool:
        """Whether a span waits for a decoder."""
        return bool(self._unread)

    @property
    def end(self) -> FileEnd | None:
        """The end of the file, once all of it is stored."""
        first = self._first
        if self._front < self.count or first is None or first.span_end is None:
            return None
        return first.span_end.end

    def next(self) -> Attempt | None:
        """The next span to read; None when there is none, or enough is under way."""
        number = min(self._unread, default=self.count)
        if number >= min(self.count, self._front + self._most_ahead):
            return None
        return self._unread.pop(number)

    def read_again(self, attempt: Attempt) -> None:
        """Read a span again that was lost."""
        self._unread[attempt.span] = attempt

    def encoded(self, reading: Reading) -> None:
        """A span is encoded: it waits to be stored."""
        self._encoded[reading.attempt.span] = reading

    def take_due(self) -> Reading | None:
        """The next span, if it can be stored now. It does not come a second time."""
        return self._encoded.pop(self._front, None)

    def admits(self, reading: Reading) -> bool:
        """Whether the next span goes on with the same file, and the file takes no more than it may."""
        end = reading.span_end
        if end is None or not end.read.is_exact:
            return False
        first = (self._first or reading).span_end
        if first is None or first.end is None:
            return False
        is_same = (end.read.bytes, end.read.mtime_ns) == (first.read.bytes, first.read.mtime_ns)
        stored_bytes = self._stored_bytes + end.read.stored_bytes
        return is_same and stored_bytes <= self._most_bytes(end.read.bytes)

    def waiting_rows(self) -> Iterator[WaitingRow]:
        """The rows of spans whose turn has not come."""
        return (row for reading in self._encoded.values() for row in reading.rows)

    def add_sent(self, sent: int, kept: int) -> None:
        """The writer has so many more of the segments, of which so many are stored."""
        self.sent += sent
        self.kept += kept

    def stored(self, reading: Reading) -> None:
        """All of the next span is stored."""
        if reading.span_end is not None:
            self._stored_bytes += reading.span_end.read.stored_bytes
        self._first = self._first or reading
        self._front += 1

    def as_whole(self, *, again: bool) -> Attempt:
        """What is left to read of the file, without cutting it.

        Args:
            again: the process that read a span has died.
        """
        return replace(self._attempt, skip=self.sent, kept=self.kept, again=again, is_whole=True)
