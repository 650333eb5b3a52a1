"""The decoders of the local engine: one runs in processes of its own, the other in this process."""

import signal
import threading
from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from indexer.decode import (
    OUT_OF_MEMORY,
    Alive,
    Cut,
    DecodedPart,
    DecodedSegment,
    DecodeJob,
    DecodeMessage,
    FileOutcome,
    FileUnreached,
    FileVerdict,
    Hashed,
    Opened,
    SpanRead,
    decode_file,
    until_known,
)
from indexer.engines.messages import DecoderMessages
from indexer.engines.records import MessageError
from indexer.engines.worker import WorkerOptions, hwaccel_part
from indexer.engines.worker_process import (
    FileProcess,
    LateError,
    Receiver,
    StartingProcess,
    StoppedError,
    WorkerProcess,
)
from indexer.library.records import Verdict, stored_ns
from indexer.media import MediaJob, MediaMessage, read_media
from indexer.place import place_error, unreached_after_failure
from indexer.texts import SourceMessage, SourceRead, TextJob, read_source
from model.runtime.cores import available_cores
from model.runtime.errors import ReelfindError
from model.runtime.sandbox.confinement import SandboxMode, hwaccel_text
from model.runtime.video import HwaccelName

#: A file may take this long, and longer the larger and the longer it is: see `most_seconds`.
_LEAST_SECONDS = 3600.0
_SECONDS_PER_MB = 1.0
_SECONDS_PER_SECOND = 10.0
#: Address space for one file: 8K video in ten bits takes 4 GiB; each thread reserves some for its memory.
_MEMORY_BYTES = 8 << 30
_MEMORY_BYTES_PER_CORE = 128 << 20
_INLINE = "decoders are not confined: they run in the indexer's own process (--workers 0)"


class Readable(Protocol):
    """A job that reads one file."""

    @property
    def file(self) -> Path:
        """The file's path."""


T = TypeVar("T")
M = TypeVar("M")
J = TypeVar("J", bound=Readable)
R = TypeVar("R", bound=Receiver[object])


@dataclass(frozen=True)
class Died:
    """The process that decoded a file died, or memory ran out: it may have been by chance.

    Attributes:
        reason: how.
        num_segments: how many segments of the file it gave.
    """

    reason: str
    num_segments: int


@dataclass(frozen=True)
class Bounds:
    """What a file may take.

    Attributes:
        timeout_seconds: give it up when nothing comes for this long.
        file_seconds: give it up when it takes this long in all; None: see `most_seconds`.
        sandbox: whether the process that reads it is confined.
        memory_bytes: address space of that process; None: `default_memory_bytes`.
        hwaccel: the GPU's decoder that it may reach; None: none.
    """

    timeout_seconds: float = 300.0
    file_seconds: float | None = None
    sandbox: SandboxMode = "auto"
    memory_bytes: int | None = None
    hwaccel: HwaccelName | None = None

    @property
    def worker_options(self) -> WorkerOptions:
        """How a decoding process confines those that read files."""
        return WorkerOptions(self.sandbox, self.memory_bytes or default_memory_bytes(), self.hwaccel)


class FileDecoder(Protocol):
    """Decodes files one after the other, in one thread.

    Attributes:
        confinement: in one line, what confines what reads the files.
    """

    confinement: str

    def read(
        self, job: DecodeJob, known_sha256: Collection[str] = (), skip: int = 0, *, again: bool = False
    ) -> Iterator[DecodedPart | Died]:
        """Yield a file's segments, then its outcome; no outcome after a request to stop.

        Args:
            job: the file.
            known_sha256: a file with one of these checksums is known and is not decoded.
            skip: leave out this many segments, which an earlier try has given.
            again: it is not the first try, so how a process ends is the outcome; else `Died` takes its place.
        """

    def read_text(self, job: TextJob) -> Iterator[SourceMessage]:
        """Yield the lines of a source of text, then how it ended; nothing more after a request to stop."""

    def read_media(self, job: MediaJob) -> Generator[MediaMessage, None, None]:
        """Yield the sound or the pictures of a video, then how it ended.

        Raises:
            StoppedError: the run was asked to stop.
        """

    def close(self) -> None:
        """Free the decoder's resources."""


class InlineDecoder:
    """Decodes in this process, without isolation or time limits; for tests and for debugging.

    Args:
        stop: when set, the current file is given up.
        hwaccel: the GPU's decoder that the jobs name.
    """

    def __init__(self, stop: threading.Event, hwaccel: HwaccelName | None = None) -> None:
        self._stop = stop
        self.confinement = _INLINE + hwaccel_text(hwaccel_part(hwaccel))

    def read(
        self, job: DecodeJob, known_sha256: Collection[str] = (), skip: int = 0, *, again: bool = False
    ) -> Iterator[DecodedPart]:
        """See `FileDecoder`; a crash ends the indexer, so there is no second try."""
        del skip, again
        for message in until_known(decode_file(job), known_sha256):
            if self._stop.is_set():
                return
            if not isinstance(message, Alive):
                yield message

    def read_text(self, job: TextJob) -> Iterator[SourceMessage]:
        """See `FileDecoder`."""
        return self._until_stopped(read_source(job))

    def read_media(self, job: MediaJob) -> Generator[MediaMessage, None, None]:
        """See `FileDecoder`."""
        return self._until_stopped(read_media(job))

    def _until_stopped(self, messages: Iterator[T]) -> Generator[T, None, None]:
        for message in messages:
            if self._stop.is_set():
                raise StoppedError
            yield message

    def close(self) -> None:
        """See `FileDecoder`."""


class ProcessDecoder:
    """Decodes each file in a process of its own, and gives a file up that takes too long.

    Args:
        bounds: what a file may take.
        stop: when set, the current file is given up.
        starting: a decoding process that starts already with these bounds; None: start one.

    Raises:
        ReelfindError: the decoding process cannot be started.
        StoppedError: the run was asked to stop.
    """

    def __init__(
        self, bounds: Bounds, stop: threading.Event, starting: StartingProcess | None = None
    ) -> None:
        self._bounds = bounds
        self._stop = stop
        self._worker = self._start(starting)
        self.confinement = str(self._worker.confinement)

    def read(
        self, job: DecodeJob, known_sha256: Collection[str] = (), skip: int = 0, *, again: bool = False
    ) -> Iterator[DecodedPart | Died]:
        """See `FileDecoder`.

        Raises:
            ReelfindError: a new decoding process cannot be started.
        """
        for part in self.read_span(job, known_sha256, skip, again=again):
            if not isinstance(part, Cut | SpanRead):
                yield part

    def read_span(
        self, job: DecodeJob, known_sha256: Collection[str] = (), skip: int = 0, *, again: bool = False
    ) -> Iterator[DecodedPart | Cut | SpanRead | Died]:
        """As `read`; where the job is a span, and the file is cut, also yield `Cut` and `SpanRead`.

        After a later span, `SpanRead` is the last part, or an outcome that is none of the whole file.

        Raises:
            ReelfindError: a new decoding process cannot be started.
        """
        limit = _FileLimit(job, self._bounds)
        try:
            if not self._worker.is_running:
                self._worker.close()
                self._worker = self._start()
            process = self._worker.start(job, limit.cpu_seconds)
        except StoppedError:
            return
        except ConnectionError:
            yield self._ended(job, None, 0, again=again)
            return
        try:
            messages = _messages(process, self._bounds.timeout_seconds, limit)
            for message in until_known(messages, known_sha256):
                if isinstance(message, Opened):
                    limit.opened(message)
                elif isinstance(message, Cut | SpanRead):
                    yield message
                    if isinstance(message, SpanRead) and job.is_later_span:
                        return
                elif isinstance(message, DecodedSegment):
                    if process.messages.num_segments > skip:
                        yield message
                elif isinstance(message, FileVerdict) and message.reason == OUT_OF_MEMORY and not again:
                    yield Died(OUT_OF_MEMORY, process.messages.num_segments)
                    return
                elif isinstance(message, FileOutcome):
                    yield message
                    return
        except StoppedError:
            return
        except MessageError as error:
            yield _given_up(job, process.messages.hashed, "corrupt", f"the decoder sent {error}")
        except LateError:
            yield self._late(job, process, limit)
        except (EOFError, ConnectionError):
            yield self._ended(job, process.messages.hashed, process.messages.num_segments, again=again)
        finally:
            process.close()
            self._worker.end_file()

    def read_text(self, job: TextJob) -> Iterator[SourceMessage]:
        """See `FileDecoder`. A reader that crashes or hangs gives the source a verdict, and no second try.

        Raises:
            ReelfindError: a new decoding process cannot be started.
            StoppedError: the run was asked to stop.
        """
        seconds = self._bounds.file_seconds or most_seconds(job.size, 0.0)
        yield from self._read_source(job, seconds, lambda job, cpu: self._worker.start_text(job, cpu))

    def read_media(self, job: MediaJob) -> Generator[MediaMessage, None, None]:
        """See `FileDecoder`. As `read_text`: no second try.

        The time that a stage takes for what it receives does not count.

        Raises:
            ReelfindError: a new decoding process cannot be started.
        """
        seconds = self._bounds.file_seconds or most_seconds(job.size, job.duration_seconds)
        yield from self._read_source(job, seconds, lambda job, cpu: self._worker.start_media(job, cpu))

    def _read_source(
        self, job: J, seconds: float, start: Callable[[J, int], FileProcess[M, R]]
    ) -> Iterator[M | SourceRead | FileUnreached]:
        """Yield what a process sends that reads a file, then how it ended.

        Args:
            job: what to read.
            seconds: how long it may be waited for, in all.
            start: starts the process.
        """
        if not self._worker.is_running:
            self._worker.close()
            self._worker = self._start()
        try:
            process = start(job, int(seconds * available_cores()) + 1)
        except ConnectionError:
            yield SourceRead("corrupt", f"its reader crashed ({self._worker.why_file_ended()[0]})")
            return
        try:
            while True:
                left = seconds - process.waited_seconds
                if left <= 0:
                    raise LateError
                message = process.receive(min(self._bounds.timeout_seconds, left))
                yield message
                if isinstance(message, SourceRead | FileUnreached):
                    return
        except MessageError as error:
            yield _reading_given_up(job, "corrupt", f"its reader sent {error}")
        except LateError:
            yield _reading_given_up(job, "timed_out", "its reader made no progress, or took too long")
        except (EOFError, ConnectionError):
            reason, number = self._worker.why_file_ended()
            verdict: Verdict = "timed_out" if number == signal.SIGXCPU else "corrupt"
            yield _reading_given_up(job, verdict, f"its reader crashed ({reason})")
        finally:
            process.close()
            self._worker.end_file()

    def close(self) -> None:
        """See `FileDecoder`."""
        self._worker.close()

    def _start(self, starting: StartingProcess | None = None) -> WorkerProcess:
        worker = WorkerProcess(self._bounds.worker_options, self._stop.is_set, starting)
        if self._bounds.sandbox == "required" and (lacking := worker.confinement.lacks()):
            worker.close()
            missing = ", ".join(f"{part.name}: {part.missing}" for part in lacking)
            raise ReelfindError(f"decoders cannot be confined ({missing}): use --sandbox auto to go without")
        return worker

    def _ended(
        self, job: DecodeJob, hashed: Hashed | None, num_segments: int, *, again: bool
    ) -> FileOutcome | Died:
        reason, number = self._worker.why_file_ended()
        if number == signal.SIGXCPU:
            return _given_up(job, hashed, "timed_out", f"it took more CPU time than it may ({reason})")
        if not again:
            return Died(reason, num_segments)
        return _given_up(job, hashed, "corrupt", f"the decoder crashed on it twice ({reason})")

    def _late(
        self, job: DecodeJob, process: FileProcess[DecodeMessage, DecoderMessages], limit: "_FileLimit"
    ) -> FileOutcome:
        messages = process.messages
        if process.waited_seconds < limit.seconds:
            timeout = self._bounds.timeout_seconds
            reason = f"no progress for {timeout:g} seconds (--timeout)"
            return _given_up(job, messages.hashed, "timed_out", reason)
        reason = f"took longer than {limit.seconds:.0f} seconds in all (--file-timeout)"
        outcome = _given_up(job, messages.hashed, "timed_out", reason)
        if messages.opened is None or not messages.num_segments or isinstance(outcome, FileUnreached):
            return outcome
        # What was read can be searched.
        return replace(outcome, verdict="partial", info=messages.opened.info)


class _FileLimit:
    """How long one file may take in all."""

    def __init__(self, job: DecodeJob, bounds: Bounds) -> None:
        self._fixed = bounds.file_seconds
        self._bytes = job.size
        self._longest = job.spec.reading.max_hours * 3600
        self.seconds = self._fixed or most_seconds(self._bytes, 0.0)

    def opened(self, opened: Opened) -> None:
        """Take the length of the video into account."""
        known = min(max(opened.info.duration_seconds, 0.0), self._longest)
        self.seconds = self._fixed or most_seconds(self._bytes, known)

    @property
    def cpu_seconds(self) -> int:
        """CPU time of all threads together; the length of the video is not known when it is set."""
        seconds = self._fixed or most_seconds(self._bytes, self._longest)
        return int(seconds * available_cores()) + 1


def most_seconds(size: int, duration_seconds: float) -> float:
    """How long a file may take in all, where no limit is set: an hour, a second for each MB, 10 × its length.

    Args:
        size: in bytes.
        duration_seconds: its length; 0 as long as it is not known.
    """
    return _LEAST_SECONDS + size / 1e6 * _SECONDS_PER_MB + duration_seconds * _SECONDS_PER_SECOND


def default_memory_bytes() -> int:
    """Address space of the process that decodes one file: 8 GiB, and 128 MiB for each core."""
    return _MEMORY_BYTES + available_cores() * _MEMORY_BYTES_PER_CORE


def _messages(
    process: FileProcess[DecodeMessage, DecoderMessages], timeout_seconds: float, limit: _FileLimit
) -> Iterator[DecodeMessage]:
    while True:
        left = limit.seconds - process.waited_seconds
        if left <= 0:  # also where messages never fail to come
            raise LateError
        yield process.receive(min(timeout_seconds, left))


def _reading_given_up(job: Readable, verdict: Verdict, reason: str) -> SourceRead | FileUnreached:
    """The end of a file whose reader was ended: its fault only if its place can be reached."""
    lost = unreached_after_failure(job.file, None)
    return SourceRead(verdict, reason) if lost is None else FileUnreached(f"{lost} ({reason})")


def _given_up(
    job: DecodeJob, hashed: Hashed | None, verdict: Literal["corrupt", "timed_out"], reason: str
) -> FileVerdict | FileUnreached:
    """The outcome of a file whose decoder was ended: its fault only if its place can be reached.

    `hashed` is what the decoder has said of its content.
    """
    lost = unreached_after_failure(job.file, job.device)
    try:
        stat = None if lost else job.file.stat()
    except OSError as error:
        lost, stat = f"cannot be reached: {place_error(error)}", None
    if stat is None:
        return FileUnreached(f"{lost} ({reason})")
    if hashed is not None:
        return FileVerdict(verdict, reason, None, hashed.sha256, hashed.bytes, hashed.mtime_ns)
    return FileVerdict(verdict, reason, None, "", stat.st_size, stored_ns(stat.st_mtime_ns))
