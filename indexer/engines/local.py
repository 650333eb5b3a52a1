"""The engine of one machine: processes that decode, threads that encode, a thread that writes.

    tasks ─▶ decoder threads (a worker process each) ─▶ encoding threads ─▶ writer thread
                      segments, bounded                      rows, bounded

The parts of a file stay in order, so the sink gets a file's end after its rows. A file whose decoder died is
tried once more, after all others: one at a time, so that the memory is free for it.
"""

import threading
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass

from indexer.decode import DecodedSegment, DecodeSpec, FileOutcome, FileVerdict
from indexer.encode import EncodeSpec
from indexer.engines.base import Sink
from indexer.engines.channel import Abort, AbortedError, Channel, guarded, join
from indexer.engines.local_decoders import Bounds, Died, FileDecoder, InlineDecoder, ProcessDecoder
from indexer.engines.local_encoding import DecoderEnded, EncodingStage, FromDecoder
from indexer.engines.worker_process import StartingProcess, StoppedError
from indexer.engines.writing import FileEnd, ToWriter, waiting_batches, writing
from indexer.events import Event, FileStarted, Note
from indexer.file_texts import kept_outcome, read_texts
from indexer.library.records import SEARCHABLE, displayable
from indexer.plan import IndexTask
from model.runtime.bundle import Bundle
from model.runtime.tracing import carried, span


class LocalEngine:
    """An `Engine` that works on this machine.

    Args:
        bundle: opened as in the `EncodeSpec` of the run.
        workers: decoding processes; 0 decodes in this process, without isolation or time limits.
        encoders: batches encoded at the same time.
        bounds: what a file may take, and how the process that reads it is confined.
        starting: a decoding process that starts already with these bounds; None: start all.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        workers: int,
        encoders: int,
        bounds: Bounds,
        starting: StartingProcess | None = None,
    ) -> None:
        self._bundle = bundle
        # The first thread takes it.
        self._starting = iter([starting] if starting else [])
        self._workers = workers
        self._encoders = encoders
        self._bounds = bounds

    def run(
        self,
        tasks: Collection[IndexTask],
        decode_spec: DecodeSpec,
        encode_spec: EncodeSpec,
        sink: Sink,
        emit: Callable[[Event], None],
        stop: threading.Event,
    ) -> None:
        """See `Engine`."""
        abort = Abort()
        # A segment in a queue takes a few MB at most, so this bounds the memory, however long the videos are.
        ahead = self._encoders + 2 * max(1, encode_spec.batch_frames // 16) + 1
        decoded: Channel[FromDecoder] = Channel(ahead, abort)
        encoded: Channel[ToWriter] = Channel(waiting_batches(encode_spec), abort)
        decoding = _DecodingThreads(self._new_decoder, tasks, decode_spec, decoded, emit, stop, abort)
        encoding = EncodingStage(self._bundle, encode_spec, self._encoders, decoded, encoded, emit)

        decoders = min(max(self._workers, 1), len(tasks))
        threads = [
            threading.Thread(target=carried(guarded), args=(decoding.work, abort), name=f"decoder-{i}")
            for i in range(decoders)
        ]
        write = writing(encoded, sink, stop)
        threads.append(threading.Thread(target=carried(guarded), args=(write, abort), name="writer"))
        for thread in threads:
            thread.start()
        try:
            encoding.run(decoders)
            encoded.put(None)
        except AbortedError:
            pass
        except BaseException as error:
            abort.fail(error)
        finally:
            for thread in threads:
                join(thread, abort)
        if abort.error is not None:
            raise abort.error

    def _new_decoder(self, halt: threading.Event) -> FileDecoder:
        if self._workers == 0:
            return InlineDecoder(halt, self._bounds.hwaccel)
        return ProcessDecoder(self._bounds, halt, next(self._starting, None))


@dataclass(frozen=True)
class _Attempt:
    """A task to decode; `skip` segments of it are encoded already if it is tried `again`."""

    task: IndexTask
    skip: int = 0
    again: bool = False


class _DecodingThreads:
    """The work of the decoder threads, which share the tasks."""

    def __init__(
        self,
        new_decoder: Callable[[threading.Event], FileDecoder],
        tasks: Collection[IndexTask],
        spec: DecodeSpec,
        decoded: Channel[FromDecoder],
        emit: Callable[[Event], None],
        stop: threading.Event,
        abort: Abort,
    ) -> None:
        self._new_decoder = new_decoder
        self._tasks = iter(tasks)
        self._again: deque[_Attempt] = deque()
        self._lock = threading.Lock()
        self._decoding = 0
        #: Checksums of what was decoded in this run, by size: its copies need not be.
        self._decoded_now: dict[int, list[str]] = {}
        self._has_told = False
        self._spec = spec
        self._decoded = decoded
        self._emit = emit
        self._halt = _StopOrAbort(stop, abort)

    def work(self) -> None:
        """Decode files until none are left, then send `DecoderEnded`. Runs in each thread."""
        decoder: FileDecoder | None = None
        attempt: _Attempt | None = None
        try:
            while (attempt := self._next_attempt(attempt)) is not None:
                if decoder is None:
                    decoder = self._new_decoder(self._halt)
                    self._tell_once(decoder.confinement)
                with span("decode") as decoding:
                    decoding.set("file.path", displayable(attempt.task.path))
                    self._decode(decoder, attempt)
        except StoppedError:
            pass
        finally:
            if decoder is not None:
                decoder.close()
        self._decoded.put(DecoderEnded())

    def _decode(self, decoder: FileDecoder, attempt: _Attempt) -> None:
        task = attempt.task
        if not attempt.again:
            self._emit(FileStarted(task.path))
        if task.kept_mtime_ns is not None:
            self._finish(decoder, task, kept_outcome(task))
            return
        known = (*task.known_sha256, *self._decoded_now.get(task.size, ()))
        job = self._spec.job(task.path, task.device, task.size)
        for part in decoder.read(job, known, attempt.skip, again=attempt.again):
            if isinstance(part, Died):
                self._again.append(_Attempt(task, part.num_segments, again=True))
            elif isinstance(part, DecodedSegment):
                self._decoded.put((task, part))
            else:
                self._finish(decoder, task, part)

    def _finish(self, decoder: FileDecoder, task: IndexTask, outcome: FileOutcome) -> None:
        """Read the texts of a file, and end it."""
        if isinstance(outcome, FileVerdict) and outcome.verdict in SEARCHABLE:
            with self._lock:
                self._decoded_now.setdefault(outcome.bytes, []).append(outcome.sha256)
        texts = read_texts(task, outcome, self._spec, decoder.read_text)
        self._decoded.put((task, FileEnd(outcome, texts)))

    def _next_attempt(self, finished: _Attempt | None) -> _Attempt | None:
        """The next file to decode; None when the thread may end."""
        with self._lock:
            self._decoding -= finished is not None
            if self._halt.is_set():
                return None
            task = next(self._tasks, None)
            attempt = None if task is None else _Attempt(task)
            # The last thread at work does what is to be done again.
            if attempt is None and self._again and not self._decoding:
                attempt = self._again.popleft()
            self._decoding += attempt is not None
            return attempt

    def _tell_once(self, confinement: str) -> None:
        with self._lock:
            has_told, self._has_told = self._has_told, True
        if not has_told:
            self._emit(Note(confinement))


class _StopOrAbort(threading.Event):
    """Is set when the run was asked to stop or has failed."""

    def __init__(self, stop: threading.Event, abort: Abort) -> None:
        super().__init__()
        self._stop = stop
        self._abort = abort

    def is_set(self) -> bool:
        """Whether work should end."""
        return self._stop.is_set() or self._abort.failed
