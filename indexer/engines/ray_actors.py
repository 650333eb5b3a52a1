"""What runs on the nodes of a Ray cluster: one class decodes files, the other encodes and stores segments.

    DecodingActor ── segments ──▶ EncodingActor ── rows ──▶ EncodingActor: the library's data files
          │                             │                         │
          └──────────── what it is ─────┴──▶ driver ◀── fragments ┘

Segments and rows lie in the object store. The driver gets what they are, and references to them. A file is
read in a process of its own, which is confined: what the actor takes from it is checked, and only that goes
further.
This module does not import Ray: the driver makes actors of the classes.
"""

import os
import platform
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from indexer.decode import (
    SPAN_NOT_READ,
    Cut,
    DecodedSegment,
    DecodeSpec,
    FileOutcome,
    FileVerdict,
    SpanOrder,
    SpanRead,
)
from indexer.encode import (
    EncodedSegment,
    EncodeSpec,
    SegmentLost,
    TaskSegment,
    encode_batch,
    lost_if_not_finite,
)
from indexer.engines.local_decoders import Bounds, Died, ProcessDecoder
from indexer.engines.writing import FileEnd
from indexer.file_texts import kept_outcome, read_texts
from indexer.library.errors import StoreAwayError
from indexer.library.fragments import WrittenSegments, write_segments
from indexer.library.records import displayable
from indexer.library.schema import SegmentRow
from indexer.library.storage.address import library_folder
from indexer.library.storage.registry import storage_of
from indexer.plan import IndexTask
from model.runtime.bundle import Bundle
from model.runtime.errors import BundleError, InputError
from model.runtime.tracing import Span, TraceOrigin, span, tracing_from

#: Packages whose other version gives other results, or does not understand what is sent.
_SAME = ("reelfind", "av", "numpy", "pillow", "pylance")


@dataclass(frozen=True)
class ReadOrder:
    """A file to decode.

    Attributes:
        task: the file.
        known_sha256: as `FileDecoder.read` takes it, besides those of the task.
        skip: how many of its segments, or of those of the span, the driver has already.
        again: it was tried before, and its process died.
        span: which span of it to decode, if it is so long that it is cut; None: all of it.
    """

    task: IndexTask
    known_sha256: tuple[str, ...] = ()
    skip: int = 0
    again: bool = False
    span: SpanOrder | None = None


@dataclass(frozen=True)
class SegmentReport:
    """A segment was decoded.

    Attributes:
        start_seconds: where it begins.
        end_seconds: where it ends.
        num_frames: how many frames it has.
        num_bytes: the memory that its pictures take.
    """

    start_seconds: float
    end_seconds: float
    num_frames: int
    num_bytes: int


@dataclass(frozen=True)
class SpanEnd:
    """A span was decoded.

    Attributes:
        read: what is known of it.
        end: after the first span: the end of the file, if all other spans are exact too.
    """

    read: SpanRead
    end: FileEnd | None


@dataclass(frozen=True)
class RowReport:
    """A segment was encoded, of so many frames; `lost` says why there is no row, if there is none."""

    num_frames: int
    lost: SegmentLost | None


@dataclass(frozen=True)
class NodeReport:
    """Where an actor runs.

    Attributes:
        host: the name of the computer.
        versions: the versions of the packages that must be the driver's.
        confinement: what confines the processes that read files, in one line; of a decoding actor.
        sees_library: whether it can write to the library; of an encoding actor.
    """

    host: str
    versions: tuple[tuple[str, str], ...]
    confinement: str = ""
    sees_library: bool = False


@dataclass(frozen=True)
class RowOrder:
    """A row to store.

    Attributes:
        rows: in which of the lists of rows it is.
        position: its position in that list.
        segment_index: its number in its video.
    """

    rows: int
    position: int
    segment_index: int


@dataclass(frozen=True)
class SharedTables:
    """Where the library's tables are, for nodes that see the same disk or object store as the driver.

    Attributes:
        place: the folder of the tables, or its address; see `place_name`.
        mark: a file in it, which the driver has written.
    """

    place: str
    mark: str

    @property
    def folder(self) -> Path:
        """The folder of the tables on this computer; in an object store, what stands for it."""
        return library_folder(self.place)

    def are_seen(self) -> bool:
        """Whether this process sees the same place, and may write there, as far as that can be told."""
        try:
            storage = storage_of(self.folder)
            is_there = storage.mark(self.folder / self.mark) is not None
        except (OSError, InputError, StoreAwayError):
            return False
        return is_there and (not storage.is_local or os.access(self.folder, os.W_OK))


#: What a decoding actor says of a part of a file: a segment, that it decodes only a span, the end of the span
#: or of the file, or that its process died.
PartReport = SegmentReport | Cut | SpanEnd | FileEnd | Died


class DecodingActor:
    """Decodes files, one after the other, as `ProcessDecoder` does on one machine.

    Args:
        bounds: what a file may take, and how the process that reads it is confined.
        spec: how to decode.
        origin: where spans come from; None: none are made.
    """

    def __init__(self, bounds: Bounds, spec: DecodeSpec, origin: TraceOrigin | None) -> None:
        self._bounds = bounds
        self._spec = spec
        self._traces = ActorTraces(origin)
        self._decoder: ProcessDecoder | None = None
        self._parts: Iterator[tuple[PartReport, TaskSegment | None]] = iter(())

    def open(self) -> NodeReport:
        """Start the decoding process.

        Raises:
            ReelfindError: it cannot be started.
            InputError: spans are asked for and cannot be made here.
        """
        self._traces.open()
        # Set by nobody: the driver ends the whole actor.
        self._decoder = ProcessDecoder(self._bounds, threading.Event())
        return _node_report(self._decoder.confinement)

    def next(self, order: ReadOrder | None = None) -> tuple[PartReport | None, TaskSegment | None]:
        """The next part of the file that is being read, and its segment, if it is one.

        Args:
            order: give the file up that is being read, and begin with this one.

        Returns:
            None twice when no file is being read.

        Raises:
            ReelfindError: a new decoding process cannot be started.
        """
        if order is not None:
            self._parts = self._traced(order)
        return next(self._parts, (None, None))

    def close(self) -> None:
        """End the decoding process, and send the spans that are left."""
        self._parts = iter(())
        if self._decoder is not None:
            self._decoder.close()
        self._traces.close()

    def _traced(self, order: ReadOrder) -> Iterator[tuple[PartReport, TaskSegment | None]]:
        with self._traces.span("decode") as decoding:
            decoding.set("file.path", displayable(order.task.path))
            for report, segment in self._read(order):
                if isinstance(report, Cut) and order.span is not None:
                    decoding.set("reelfind.span", order.span.number)
                yield report, segment

    def _read(self, order: ReadOrder) -> Iterator[tuple[PartReport, TaskSegment | None]]:
        if self._decoder is None:
            raise RuntimeError("`open` was not called")
        # Other computers have other numbers for the same device.
        task = replace(order.task, device=None)
        if task.kept_mtime_ns is not None:
            yield self._end(self._decoder, task, kept_outcome(task)), None
            return
        job = self._spec.job(task.path, task.device, task.size, order.span)
        known = (*task.known_sha256, *order.known_sha256)
        is_cut, read = job.is_later_span, SPAN_NOT_READ
        for part in self._decoder.read_span(job, known, order.skip, again=order.again):
            if isinstance(part, DecodedSegment):
                yield _segment_report(part), (order.task, part)
            elif isinstance(part, Cut):
                is_cut = True
                yield part, None
            elif isinstance(part, Died):
                yield part, None
                return
            elif isinstance(part, SpanRead):
                read = part
                if job.is_later_span:
                    yield SpanEnd(read, None), None
                    return
            elif not is_cut:
                yield self._end(self._decoder, task, part), None
            elif read.is_exact and isinstance(part, FileVerdict) and part.verdict == "ok":
                yield SpanEnd(read, self._end(self._decoder, task, part)), None
            else:
                yield SpanEnd(SPAN_NOT_READ, None), None

    def _end(self, decoder: ProcessDecoder, task: IndexTask, outcome: FileOutcome) -> FileEnd:
        return FileEnd(outcome, read_texts(task, outcome, self._spec, decoder.read_text))


class EncodingActor:
    """Encodes segments with the bundle, on a GPU or on a core, and stores rows where it sees the library.

    Args:
        spec: how to encode; the bundle's folder must be at the same path on this node.
        tables: where to store rows.
        origin: where spans come from; None: none are made.
    """

    def __init__(self, spec: EncodeSpec, tables: SharedTables, origin: TraceOrigin | None) -> None:
        self._spec = spec
        self._tables = tables
        self._traces = ActorTraces(origin)
        self._bundle: Bundle | None = None

    def open(self) -> NodeReport:
        """Open the bundle.

        Raises:
            BundleError: it is not on this node, is another one, or its provider is not active here.
            InputError: spans are asked for and cannot be made here.
        """
        self._traces.open()
        report = replace(_node_report(), sees_library=self._tables.are_seen())
        try:
            self._bundle = self._spec.open_bundle()
        except BundleError as error:
            raise BundleError(f"on the node {report.host}: {error}") from error
        return report

    def encode(self, *batch: TaskSegment) -> tuple[list[RowReport], list[EncodedSegment]]:
        """Encode segments together; see `encode_batch`.

        Returns:
            What became of each segment, and the rows, one for each.
        """
        if self._bundle is None:
            raise RuntimeError("`open` was not called")
        with self._traces.span("encode") as encoding:
            encoding.set("reelfind.segments", len(batch))
            encoded = encode_batch(self._bundle, self._spec, batch)
        rows = [row if isinstance(row, SegmentLost) else lost_if_not_finite(row) or row for row in encoded]
        reports = [
            RowReport(len(segment.frames), row if isinstance(row, SegmentLost) else None)
            for (_, segment), row in zip(batch, rows, strict=True)
        ]
        return reports, rows

    def write(self, orders: Sequence[RowOrder], *rows: Sequence[EncodedSegment]) -> WrittenSegments:
        """Store rows in the library's data files.

        Args:
            orders: which rows, in which order.
            rows: what `encode` gave, here or in other actors.

        Raises:
            LibraryError: the library cannot be written.
        """
        found: list[SegmentRow] = []
        for order in orders:
            row = rows[order.rows][order.position]
            if isinstance(row, SegmentLost):
                raise TypeError("a segment that is set aside has no row")
            found.append(replace(row, segment_index=order.segment_index))
        if not found:
            return WrittenSegments((), ())
        with self._traces.span("store") as storing:
            storing.set("reelfind.segments", len(found))
            return write_segments(self._tables.folder, self._spec.layout, found)

    def close(self) -> None:
        """Send the spans that are left."""
        self._traces.close()


class ActorTraces:
    """Spans of an actor, within the span of the run.

    Args:
        origin: where they come from; None: none are made.
    """

    def __init__(self, origin: TraceOrigin | None) -> None:
        self._origin = origin
        self._tracing = ExitStack()

    def open(self) -> None:
        """Begin to send spans.

        Raises:
            InputError: they cannot be made here.
        """
        self._tracing.enter_context(tracing_from(self._origin, platform.node()))

    def span(self, name: str) -> AbstractContextManager[Span]:
        """A span; see `model.runtime.tracing.span`."""
        return span(name, parent=None if self._origin is None else self._origin.parent)

    def close(self) -> None:
        """Send the spans that are left, and make no more."""
        self._tracing.close()


def _segment_report(segment: DecodedSegment) -> SegmentReport:
    num_bytes = segment.frames.nbytes + sum(map(len, segment.thumbnails))
    return SegmentReport(segment.start_seconds, segment.end_seconds, len(segment.frames), num_bytes)


def same_versions() -> tuple[tuple[str, str], ...]:
    """Versions of what must be the same on all nodes, by name."""
    found = [("python", platform.python_version())]
    for name in _SAME:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            found.append((name, "not installed"))
    return tuple(found)


def _node_report(confinement: str = "") -> NodeReport:
    return NodeReport(platform.node(), same_versions(), confinement)
