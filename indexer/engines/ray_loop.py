"""The driver's loop of a run on Ray: gives out files, segments and rows, and takes what became of them.

A file has one decoder and one encoder, so that its rows come in time order; so has each span of a file that
is cut, see `CutFile`. What is under way is bounded: a decoder is asked for few parts ahead, and for none as
long as its encoder has enough to do; rows are stored when there are enough of them. So neither the object
store nor the driver fills up, however long the videos are.

Rows are stored by the encoder: those of a long video by themselves while it is read, those of files that are
over together. Where it does not see the library's disk, the driver takes the rows.

An actor that is lost, alone or with its node, is replaced. The files that it read or encoded are read again,
without the segments that the writer has.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

from indexer.decode import Cut, SpanOrder
from indexer.encode import EncodedSegment, EncodeSpec
from indexer.engines.channel import Channel
from indexer.engines.local_decoders import Died
from indexer.engines.ray_actors import ReadOrder, RowOrder, SegmentReport, SpanEnd
from indexer.engines.ray_files import FileQueue
from indexer.engines.ray_fleet import (
    Decoder,
    EncodeCall,
    Encoder,
    Fleet,
    Member,
    Ref,
    WaitingPart,
    WaitingSegment,
    WriteCall,
)
from indexer.engines.ray_metrics import RunMetrics
from indexer.engines.ray_readings import Reading, WaitingRow
from indexer.engines.ray_spans import CutFile
from indexer.engines.writing import FileEnd, StoredRows, ToWriter
from indexer.events import Event, FileStarted, SegmentEncoded

#: Parts that a decoder is asked for ahead, and batches that an encoder is given ahead.
_PARTS_AHEAD = 2
_BATCHES_AHEAD = 2
#: Rows that are stored together, in number and memory: of one file that goes on, and of files that are over.
_ROWS_OF_ONE = 32
_BYTES_OF_ONE = 16 << 20
_ROWS_OF_MANY = 128
_BYTES_OF_MANY = 48 << 20
#: How long a file that is over waits for others.
_STORE_SECONDS = 5.0
#: How often to tell how much is under way.
_MEASURE_SECONDS = 1.0
#: How often to look for new tasks and a request to stop, where nothing else happens.
_LOOK_SECONDS = 0.1


class RayLoop:
    """Runs in one thread.

    Args:
        ray: the module, connected.
        fleet: the actors.
        files: the files to read.
        spec: how to encode.
        span_seconds: longer files are cut into spans of this length, at most.
        encoded: where rows and ends of files go.
        metrics: counts what the run does.
        emit: receives `FileStarted` and `SegmentEncoded`.
        stop: when set, no further file is started, and those that are not decoded are given up.
    """

    def __init__(
        self,
        ray: Any,
        fleet: Fleet,
        files: FileQueue,
        spec: EncodeSpec,
        span_seconds: float,
        encoded: Channel[ToWriter],
        metrics: RunMetrics,
        emit: Callable[[Event], None],
        stop: threading.Event,
    ) -> None:
        self._ray = ray
        self._fleet = fleet
        self._files = files
        self._span_seconds = span_seconds
        self._batch_frames = spec.batch_frames
        segment_bytes = spec.layout.segment_bytes
        #: Rows of a file that is being read, and of files that are over, that are stored together.
        self._rows_of_one = max(1, min(_ROWS_OF_ONE, _BYTES_OF_ONE // segment_bytes))
        self._rows_of_many = max(1, min(_ROWS_OF_MANY, _BYTES_OF_MANY // segment_bytes))
        #: Segments that an encoder may have before it.
        self._most_segments = 2 * max(1, spec.batch_frames // spec.layout.frames_per_segment)
        self._encoded = encoded
        self._metrics = metrics
        self._frame_bytes = spec.layout.frame_bytes
        self._measured_at = 0.0
        self._emit = emit
        self._stop = stop
        #: The files that are begun and not over, and the encoder of each.
        self._active: dict[Reading, Encoder] = {}

    def run(self) -> None:
        """Decode and encode all files.

        Raises:
            BundleError: the bundle cannot be opened on a node, or fails.
            ReelfindError: the cluster cannot be used, or a node cannot start decoding processes.
            AbortedError: another thread failed.
        """
        while not self._is_done():
            if self._stop.is_set():
                self._give_up_unread()
            else:
                self._start_files()
                self._ask_for_parts()
                self._fleet.say_if_waiting()
            self._submit_batches()
            self._store_spans()
            self._store_ended()
            self._take_results()
            self._measure()
        self._metrics.in_flight(0)

    def _measure(self) -> None:
        """Tell now and then how much is under way."""
        now = time.monotonic()
        if now - self._measured_at < _MEASURE_SECONDS:
            return
        self._measured_at = now
        segments: list[WaitingSegment] = []
        rows = [row for reading in self._active for row in reading.rows]
        rows += [row for cut in self._files.cuts for row in cut.waiting_rows()]
        for encoder in self._fleet.encoders.members:
            segments += encoder.segments
            for call in encoder.calls:
                if isinstance(call, EncodeCall):
                    segments += call.segments
                else:
                    rows += chain.from_iterable(call.rows.values())
        decoded = sum(segment.report.num_bytes for segment in segments)
        self._metrics.in_flight(decoded + self._frame_bytes * sum(row.num_frames for row in rows))

    def _is_done(self) -> bool:
        is_over = self._files.is_empty or (self._stop.is_set() and not self._files.cuts)
        return not self._active and is_over

    def _give_up_unread(self) -> None:
        """Drop the files that are not decoded to their ends."""
        for cut in list(self._files.cuts):
            are_read = all(reading.is_read for reading in self._active if reading.attempt.cut is cut)
            if cut.has_unread or not are_read:
                self._files.cuts.remove(cut)
                self._leave_spans(cut)
        for reading in list(self._active):
            if not reading.is_read:
                reading.is_lost = True
                self._leave(reading)

    def _start_files(self) -> None:
        for decoder in self._fleet.decoders.ready():
            encoder = min(self._fleet.encoders.ready(), key=lambda each: each.num_files, default=None)
            if decoder.reading is not None or encoder is None:
                continue
            attempt = self._files.next(is_alone=not self._active)
            if attempt is None:
                return
            if attempt.is_first:
                self._emit(FileStarted(attempt.task.path))
            decoder.reading = reading = Reading(attempt)
            self._active[reading] = encoder
            encoder.num_files += 1
            known = self._files.known_sha256(attempt.task)
            span = SpanOrder(attempt.span, self._span_seconds) if attempt.may_be_cut else None
            _ask(decoder, reading, ReadOrder(attempt.task, known, attempt.skip, attempt.again, span))

    def _ask_for_parts(self) -> None:
        for decoder in self._fleet.decoders.ready():
            reading = decoder.reading
            if reading is None:
                continue
            encoder = self._active[reading]
            while len(decoder.parts) < _PARTS_AHEAD and len(encoder.segments) < self._most_segments:
                _ask(decoder, reading)

    def _submit_batches(self) -> None:
        for encoder in self._fleet.encoders.ready():
            while encoder.segments and len(encoder.calls) < _BATCHES_AHEAD:
                batch: list[WaitingSegment] = []
                num_frames = 0
                # What is decoded by now: waiting for more would leave the encoder idle.
                while encoder.segments and num_frames < self._batch_frames:
                    segment = encoder.segments.popleft()
                    if not segment.reading.is_lost:
                        batch.append(segment)
                        num_frames += segment.report.num_frames
                if batch:
                    encode = encoder.handle.encode.options(num_returns=2)
                    result, rows = encode.remote(*(segment.segment for segment in batch))
                    encoder.calls.append(EncodeCall(result, rows, batch))

    def _store_ended(self) -> None:
        """Store files that are over: when they are enough, have waited, or nothing else goes on."""
        for encoder in self._fleet.encoders.ready():
            if not encoder.ended:
                continue
            are_enough = sum(len(reading.rows) for reading in encoder.ended) >= self._rows_of_many
            have_waited = time.monotonic() - encoder.ended_since >= _STORE_SECONDS
            if are_enough or have_waited or all(reading.is_encoded for reading in self._active):
                ended, encoder.ended = encoder.ended, []
                self._store(encoder, _taken(ended), are_last=True)

    def _store_spans(self) -> None:
        """Store the spans of cut files whose turn it is."""
        encoders = list(self._fleet.encoders.ready())
        for cut in list(self._files.cuts) if encoders else ():
            reading = cut.take_due()
            if reading is None:
                continue
            if not cut.admits(reading):
                self._read_whole(cut)
                continue
            reading.numbered = cut.kept
            that_store = [encoder for encoder in encoders if encoder.sees_library]
            if reading.is_sent:
                self._end_span(cut, reading)
            elif that_store:
                self._store_span(min(that_store, key=lambda each: len(each.calls)), reading)
            else:
                self._send_span(encoders[0], cut, reading)

    def _store_span(self, encoder: Encoder, reading: Reading) -> None:
        """Let an encoder store the rows of a span, which may be many."""
        self._active[reading] = encoder
        encoder.num_files += 1
        rows, reading.rows = reading.rows, []
        for start in range(0, len(rows), self._rows_of_one):
            self._store(encoder, {reading: rows[start : start + self._rows_of_one]}, are_last=False)

    def _send_span(self, encoder: Encoder, cut: CutFile, reading: Reading) -> None:
        """Send the rows of a span to the writer, where no encoder stores rows."""
        self._active[reading] = encoder
        encoder.num_files += 1
        lists: dict[Ref, list[EncodedSegment]] = {}
        for row in reading.rows:
            if row.rows not in lists:
                found = self._get(row.rows, encoder, [reading])
                if found is None:
                    return
                lists[row.rows] = found
        kept = sum(row.lost is None for row in reading.rows)
        self._encoded.put([lists[row.rows][row.position] for row in reading.rows])
        cut.add_sent(len(reading.rows), kept)
        self._leave(reading)
        self._end_span(cut, reading)

    def _end_span(self, cut: CutFile, reading: Reading) -> None:
        """A span is stored."""
        cut.stored(reading)
        end = cut.end
        if end is not None:
            self._files.cuts.remove(cut)
            self._finish(reading, end)

    def _store(
        self, encoder: Encoder, rows_of: Mapping[Reading, list[WaitingRow]], *, are_last: bool
    ) -> None:
        """Let an encoder store rows of some files."""
        lists: dict[Ref, int] = {}
        orders: list[RowOrder] = []
        for reading, rows in rows_of.items():
            for row in rows:
                if row.lost is None:
                    number = lists.setdefault(row.rows, len(lists))
                    orders.append(RowOrder(number, row.position, reading.numbered))
                    reading.numbered += 1
        encoder.calls.append(WriteCall(encoder.handle.write.remote(orders, *lists), rows_of, are_last))

    def _take_results(self) -> None:
        """Wait until something is ready, and take all that is."""
        refs = dict(self._awaited())
        if not refs:
            self._stop.wait(_LOOK_SECONDS)
            return
        some, _ = self._ray.wait(list(refs), timeout=_LOOK_SECONDS, fetch_local=False)
        if some:
            ready, _ = self._ray.wait(list(refs), num_returns=len(refs), timeout=0, fetch_local=False)
            for ref in ready:
                refs[ref]()

    def _awaited(self) -> Iterator[tuple[Ref, Callable[[], None]]]:
        """The oldest call of each actor, and what to do with its result."""
        for decoder in self._fleet.decoders.members:
            if decoder.opening is not None:
                yield decoder.opening, partial(self._take_opened, decoder, decoder.opening)
            elif decoder.parts:
                yield decoder.parts[0].report, partial(self._take_part, decoder)
        for encoder in self._fleet.encoders.members:
            if encoder.opening is not None:
                yield encoder.opening, partial(self._take_opened, encoder, encoder.opening)
            elif encoder.calls:
                call = encoder.calls[0]
                if isinstance(call, EncodeCall):
                    yield call.result, partial(self._take_encoded, encoder, call)
                else:
                    yield call.result, partial(self._take_written, encoder, call)

    def _take_opened(self, member: Member, opening: Ref) -> None:
        report = self._get(opening, member)
        if report is not None:
            self._fleet.opened(member, report)

    def _take_part(self, decoder: Decoder) -> None:
        part = decoder.parts.popleft()
        reading = part.reading
        report = self._get(part.report, decoder)
        if report is None or reading.is_lost or reading is not decoder.reading:
            # Of a file that is over, or was given up.
            return
        if isinstance(report, SegmentReport):
            reading.decoded += 1
            self._metrics.decoded(report.end_seconds - report.start_seconds)
            self._active[reading].segments.append(WaitingSegment(reading, part.segment, report))
            return
        cut = reading.attempt.cut
        if isinstance(report, Cut):
            if cut is None:
                self._files.cut(reading, report.count)
            elif cut.count != report.count:
                self._read_whole(cut)
            return
        decoder.reading = None
        if cut is not None and not (isinstance(report, SpanEnd) and report.read.is_exact):
            self._read_whole(cut, again=isinstance(report, Died))
            return
        if isinstance(report, Died):
            reading.has_died = True
        elif isinstance(report, SpanEnd):
            reading.span_end = report
        else:
            reading.end = report
        if reading.is_encoded:
            self._end(reading)

    def _read_whole(self, cut: CutFile, *, again: bool = False) -> None:
        """Read a file as a whole, whose spans do not give the same."""
        self._files.read_whole(cut, again=again)
        self._leave_spans(cut)

    def _leave_spans(self, cut: CutFile) -> None:
        """Free the actors of a file that is cut, and use nothing of what they give."""
        for reading in [each for each in self._active if each.attempt.cut is cut]:
            reading.is_lost = True
            self._leave(reading)

    def _take_encoded(self, encoder: Encoder, call: EncodeCall) -> None:
        encoder.calls.popleft()
        readings = [segment.reading for segment in call.segments]
        reports = self._get(call.result, encoder, readings)
        if reports is None:
            return
        # Those of spans wait for their turn.
        to_send = [] if encoder.sees_library else [each for each in readings if each.attempt.cut is None]
        rows = self._get(call.rows, encoder, readings) if to_send else []
        if rows is None:
            return
        used = [place for place, reading in enumerate(readings) if not reading.is_lost]
        if sent := [rows[place] for place in used if readings[place] in to_send]:
            self._encoded.put(sent)
        for place in used:
            reading, segment, report = readings[place], call.segments[place].report, reports[place]
            reading.encoded += 1
            self._metrics.encoded(report.num_frames)
            if reading in to_send:
                reading.sent += 1
                reading.kept += report.lost is None
            else:
                reading.rows.append(WaitingRow(call.rows, place, report.num_frames, report.lost))
            seconds = segment.end_seconds - segment.start_seconds
            self._emit(SegmentEncoded(reading.attempt.task.path, seconds))
        for reading in dict.fromkeys(readings[place] for place in used):
            if reading.is_encoded:
                self._end(reading)
            elif len(reading.rows) >= self._rows_of_one and reading.attempt.cut is None:
                self._store(encoder, _taken([reading]), are_last=False)

    def _take_written(self, encoder: Encoder, call: WriteCall) -> None:
        encoder.calls.popleft()
        written = self._get(call.result, encoder, list(call.rows))
        if written is None:
            return
        if any(reading.is_lost for reading in call.rows):
            # Rows of one of them will come again: none of these may count.
            self._lose_all(list(call.rows))
            return
        lost = [row.lost for rows in call.rows.values() for row in rows if row.lost is not None]
        if lost:
            self._encoded.put(list(lost))
        counts: dict[str, tuple[int, int]] = {}
        for reading, rows in call.rows.items():
            good = [row.num_frames for row in rows if row.lost is None]
            if good:
                counts[reading.attempt.task.ingest_id] = len(good), sum(good)
            reading.sent += len(rows)
            reading.kept += len(good)
            if reading.attempt.cut is not None:
                reading.attempt.cut.add_sent(len(rows), len(good))
        ended = [(reading, reading.end) for reading in call.rows if call.are_last and reading.end is not None]
        ends = [(reading.attempt.task, end.outcome, end.texts) for reading, end in ended]
        self._encoded.put(StoredRows(written, counts, ends))
        for reading, end in ended:
            self._leave(reading)
            self._files.finished(end)
            self._metrics.finished(end.outcome)
        for reading in call.rows:
            cut = reading.attempt.cut
            if cut is not None and reading.is_sent:
                self._leave(reading)
                self._end_span(cut, reading)

    def _end(self, reading: Reading) -> None:
        """Go on with a file of which all is encoded: store it, finish it, or read it again."""
        encoder = self._active[reading]
        if reading.attempt.cut is not None:
            self._leave(reading)
            reading.attempt.cut.encoded(reading)
        elif reading.end is None:
            self._leave(reading)
            self._files.died(reading)
        elif reading.is_sent:
            self._leave(reading)
            self._finish(reading, reading.end)
        else:
            if not encoder.ended:
                encoder.ended_since = time.monotonic()
            encoder.ended.append(reading)

    def _finish(self, reading: Reading, end: FileEnd) -> None:
        self._encoded.put((reading.attempt.task, end))
        self._files.finished(end)
        self._metrics.finished(end.outcome)

    def _leave(self, reading: Reading) -> None:
        """Free the actors of a file that is over or given up."""
        encoder = self._active.pop(reading)
        encoder.num_files -= 1
        if reading in encoder.ended:
            encoder.ended.remove(reading)
        for decoder in self._fleet.decoders.members:
            if decoder.reading is reading:
                decoder.reading = None

    def _lose(self, reading: Reading) -> None:
        """Read a file again, whose segments were lost."""
        if reading in self._active:
            self._leave(reading)
            end = self._files.lost(reading)
            if end is not None:
                if reading.attempt.cut is not None:
                    self._leave_spans(reading.attempt.cut)
                self._finish(reading, end)

    def _lose_member(self, member: Member, error: Exception) -> None:
        """Read the files again that an actor read or encoded, and start another actor in its place."""
        self._fleet.lost(member, error)
        if isinstance(member, Decoder) and member.reading is not None:
            self._lose(member.reading)
        if isinstance(member, Encoder):
            for reading in [each for each, encoder in self._active.items() if encoder is member]:
                self._lose(reading)

    def _get(self, ref: Ref, member: Member, readings: Sequence[Reading] = ()) -> Any:
        """The result of a call of an actor; None when it is lost.

        Args:
            ref: the call.
            member: the actor.
            readings: the files whose segments it was given, which may be lost with another node.

        Raises:
            Exception: what the call raised.
        """
        errors = self._ray.exceptions
        try:
            return self._ray.get(ref)
        except errors.RayActorError as error:
            self._lose_member(member, error)
        except errors.ObjectLostError:
            self._lose_all(readings)
        except errors.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, errors.ObjectLostError):
                self._lose_all(readings)
            else:
                raise (cause or error) from None
        return None

    def _lose_all(self, readings: Sequence[Reading]) -> None:
        for reading in readings:
            self._lose(reading)


def _taken(readings: Sequence[Reading]) -> dict[Reading, list[WaitingRow]]:
    """The rows of files that wait to be stored, which do not wait any more."""
    taken: dict[Reading, list[WaitingRow]] = {}
    for reading in readings:
        taken[reading], reading.rows = reading.rows, []
    return taken


def _ask(decoder: Decoder, reading: Reading, order: ReadOrder | None = None) -> None:
    """Ask a decoder for a part of its file."""
    report, segment = decoder.handle.next.options(num_returns=2).remote(order)
    decoder.parts.append(WaitingPart(report, segment, reading))
