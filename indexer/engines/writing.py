"""The writer thread of an engine: the only one that calls the sink."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from indexer.decode import FileOutcome
from indexer.encode import EncodedSegment, EncodeSpec
from indexer.engines.base import FinishedFile, Sink
from indexer.engines.channel import Channel
from indexer.file_texts import FileTexts
from indexer.library.fragments import WrittenSegments
from indexer.plan import IndexTask

#: About the memory, at most, of the encoded rows that wait for the writer.
_WAITING_BYTES = 32 << 20


@dataclass(frozen=True)
class FileEnd:
    """A file is decoded, and its texts are read; None: they were not."""

    outcome: FileOutcome
    texts: FileTexts | None


@dataclass(frozen=True)
class StoredRows:
    """Segments that the engine has stored; see `Sink.add_written`."""

    written: WrittenSegments
    counts: Mapping[str, tuple[int, int]]
    ends: Sequence[FinishedFile]


#: What the writer thread receives: rows, then the end of their file; None at the end of the run.
ToWriter = list[EncodedSegment] | StoredRows | tuple[IndexTask, FileEnd] | None


def writing(encoded: Channel[ToWriter], sink: Sink, stop: threading.Event) -> Callable[[], None]:
    """The work of the writer thread, which also closes the sink."""

    def write() -> None:
        while (item := encoded.get()) is not None:
            if isinstance(item, list):
                sink.add(item)
            elif isinstance(item, StoredRows):
                sink.add_written(item.written, item.counts, item.ends)
            else:
                task, end = item
                sink.finish(task, end.outcome, end.texts)
        sink.close(interrupted=stop.is_set())

    return write


def waiting_batches(spec: EncodeSpec) -> int:
    """How many batches of rows may wait for the writer."""
    segments = max(1, spec.batch_frames // spec.layout.frames_per_segment)
    return max(2, min(16, _WAITING_BYTES // (spec.layout.segment_bytes * segments)))
