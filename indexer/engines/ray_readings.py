"""What is read in a run on Ray: a file, or a span of a long one, and how far it is."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from indexer.encode import SegmentLost
from indexer.engines.ray_actors import SpanEnd
from indexer.engines.writing import FileEnd
from indexer.plan import IndexTask

if TYPE_CHECKING:
    from indexer.engines.ray_spans import CutFile


@dataclass(frozen=True)
class Attempt:
    """A file to read, or a span of it.

    Attributes:
        task: the file.
        skip: how many of its segments, or of those of the span, the writer has already.
        kept: how many of these are stored; the others were set aside.
        again: it was tried before, and its process died.
        losses: how often an actor was lost that read or encoded it.
        is_whole: it must not be cut: it was, and that did not do.
        cut: the file that is cut, of which it is a span; None: it is not known to be long enough.
        span: the number of the span.
    """

    task: IndexTask
    skip: int = 0
    kept: int = 0
    again: bool = False
    losses: int = 0
    is_whole: bool = False
    cut: "CutFile | None" = None
    span: int = 0

    @property
    def is_first(self) -> bool:
        """Whether the file was not begun before."""
        return not (self.again or self.losses or self.is_whole or self.cut)

    @property
    def may_be_cut(self) -> bool:
        """Whether to read only a span of the file, if it is long."""
        return not (self.again or self.is_whole or (self.skip and self.cut is None))


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
    """A file or a span that is being read, until its last segment is encoded.

    Attributes:
        attempt: what is read.
        decoded: how many of its segments are decoded, with those that are skipped.
        encoded: how many of them are encoded.
        rows: those that are encoded and that nobody stores yet, in time order.
        numbered: the number of the next row that is stored.
        sent: how many segments the writer has, with those that are set aside.
        kept: how many of these are stored.
        end: how decoding a whole file ended; None as long as it goes on.
        span_end: the same of a span.
        has_died: the process that read it has died.
        is_lost: what comes of it is not used any more.
    """

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self.decoded = self.encoded = self.sent = attempt.skip
        self.rows: list[WaitingRow] = []
        self.numbered = self.kept = attempt.kept
        self.end: FileEnd | None = None
        self.span_end: SpanEnd | None = None
        self.has_died = False
        self.is_lost = False

    @property
    def is_read(self) -> bool:
        """Whether it is decoded to its end."""
        return self.end is not None or self.span_end is not None

    @property
    def is_encoded(self) -> bool:
        """Whether all that was decoded of it is encoded, and nothing more comes."""
        return (self.is_read or self.has_died) and self.encoded == self.decoded

    @property
    def is_sent(self) -> bool:
        """Whether the writer has all that was encoded of it."""
        return self.sent == self.encoded
