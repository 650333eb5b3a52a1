"""The indexer's side of a decoding process: starts it, gives it jobs, learns how a file's process ended."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Generic, Protocol, TypeVar, cast

from indexer.decode import DecodeJob, DecodeMessage
from indexer.engines.media_messages import MediaMessages
from indexer.engines.messages import DecoderMessages, Receive, TextMessages, frame_message, read_framed
from indexer.engines.records import displayable_text, pack, unpack
from indexer.engines.worker import END, ENDED, JOB, WAIT, FileJob, WorkerOptions
from indexer.media import MediaJob, MediaMessage
from indexer.texts import SourceMessage, TextJob
from model.runtime.errors import ReelfindError
from model.runtime.own_code import import_path
from model.runtime.remote.channel import open_channel
from model.runtime.remote.path import RemotePath, media_path
from model.runtime.sandbox.confinement import Confinement

_WORKER = "from indexer.engines.worker import run_worker; run_worker()"
#: A process for each file begins with fresh memory. With huge pages, glibc gets it in a tenth of the faults.
_MALLOC = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=268435456:glibc.malloc.top_pad=16777216"
_START_SECONDS = 120.0
#: A process that is killed while it starts is started again.
_START_TRIES = 3
_POLL_SECONDS = 0.2
#: How long the decoding process may take to answer; it only waits for a process to end.
_ANSWER_SECONDS = 10.0
_SHOWN_CHARACTERS = 200
_STDERR_BYTES = 1 << 16


M = TypeVar("M")
M_co = TypeVar("M_co", covariant=True)


class Receiver(Protocol[M_co]):
    """Receives and checks messages."""

    def next(self) -> M_co:
        """The next message. MessageError where it breaks the format."""


R = TypeVar("R", bound=Receiver[object])


class StoppedError(Exception):
    """The run was asked to stop while a process was waited for."""


class LateError(Exception):
    """A process did not answer in time."""


class WorkerDiedError(Exception):
    """A decoding process died while it started, by a signal."""


class StartingProcess:
    """A decoding process that starts while the program does something else. `WorkerProcess` waits for it.

    Args:
        options: how it confines the processes that read files.
    """

    def __init__(self, options: WorkerOptions) -> None:
        self.options = options
        self.control, self.process = _launch(options)

    def close(self) -> None:
        """End it, if it still runs."""
        self.control.close()
        _end(self.process)
        if self.process.stdout is not None:
            self.process.stdout.close()


class WorkerProcess:
    """A running decoding process. It decodes one file at a time.

    Args:
        options: how it confines the processes that read files.
        stopping: whether to stop waiting.
        starting: one that starts already with these options; None: start one.

    Attributes:
        confinement: what is in force for the processes that read files.

    Raises:
        ReelfindError: it cannot be started.
        StoppedError: the run was asked to stop.
    """

    def __init__(
        self, options: WorkerOptions, stopping: Callable[[], bool], starting: StartingProcess | None = None
    ) -> None:
        self._stopping = stopping
        for tries_left in reversed(range(_START_TRIES)):
            begun = starting or StartingProcess(options)
            starting = None
            self._control, self._process = begun.control, begun.process
            self._printed = ""
            try:
                self.confinement = self._greeting()
                return
            except WorkerDiedError as error:
                if not tries_left:
                    raise ReelfindError(f"a decoding process could not be started: {error}") from None

    @property
    def is_running(self) -> bool:
        """Whether the process is alive."""
        return self._process.poll() is None

    def start(self, job: DecodeJob, cpu_seconds: int) -> "FileProcess[DecodeMessage, DecoderMessages]":
        """Begin to decode a file; the file before it is over.

        Raises:
            ConnectionError: the decoding process is dead.
        """
        connection = self._begin(FileJob(job, None, None, cpu_seconds))
        return FileProcess(connection, lambda receive: DecoderMessages(job, receive), self._stopping)

    def start_text(self, job: TextJob, cpu_seconds: int) -> "FileProcess[SourceMessage, TextMessages]":
        """Begin to read a source of text; the file before it is over. Raises as `start`."""
        connection = self._begin(FileJob(None, job, None, cpu_seconds))
        return FileProcess(connection, TextMessages, self._stopping)

    def start_media(self, job: MediaJob, cpu_seconds: int) -> "FileProcess[MediaMessage, MediaMessages]":
        """Begin to read sound or pictures for a stage; the file before it is over. Raises as `start`."""
        connection = self._begin(FileJob(None, None, job, cpu_seconds))
        return FileProcess(connection, lambda receive: MediaMessages(job, receive), self._stopping)

    def _begin(self, job: FileJob) -> socket.socket:
        """Start a process for a job. → Where its messages come from."""
        ours, theirs = socket.socketpair()
        with ExitStack() as given:
            given.enter_context(theirs)
            descriptors = [theirs.fileno()]
            if isinstance(path := media_path(job.path), RemotePath):
                descriptors.append(given.enter_context(open_channel(path)).fileno())
            try:
                message = frame_message(JOB, pack(job))
                sent = socket.send_fds(self._control, [message], descriptors)
                self._control.sendall(message[sent:])
            except BaseException:
                ours.close()
                raise
        return ours

    def end_file(self) -> None:
        """End the process of the file, whatever it does. Does not wait for it."""
        # Without the decoding process, there is none of the file either. After `close`, the socket is closed.
        with suppress(ConnectionError, OSError):
            self._control.sendall(frame_message(END, b""))

    def why_file_ended(self) -> tuple[str, int | None]:
        """How a process ended that has closed its socket, in words, and its signal, if one ended it."""
        try:
            self._control.sendall(frame_message(WAIT, b""))
            self._control.settimeout(_POLL_SECONDS)
            deadline = time.monotonic() + _ANSWER_SECONDS
            _, body = read_framed(lambda view: _fill(self._control, view, deadline, lambda: False))
        except (EOFError, ConnectionError, LateError):
            self.close()
            return self._describe(self._process.returncode)
        return self._describe(os.waitstatus_to_exitcode(ENDED.unpack(body)[0]))

    def close(self) -> None:
        """End the process, and that of the file."""
        self._control.close()
        _end(self._process)
        if self._process.stdout is not None:
            self._printed = self._read_printed()
            self._process.stdout.close()

    def _greeting(self) -> Confinement:
        """What a process sends that has just been started."""
        self._control.settimeout(_POLL_SECONDS)
        deadline = time.monotonic() + _START_SECONDS
        try:
            _, body = read_framed(lambda view: _fill(self._control, view, deadline, self._stopping))
        except (EOFError, ConnectionError, LateError):
            self.close()
            reason, number = self._describe(self._process.returncode)
            if number is not None:
                raise WorkerDiedError(reason) from None
            raise ReelfindError(f"a decoding process could not be started: {reason}") from None
        except StoppedError:
            self.close()
            raise
        return unpack(Confinement, body)

    def _describe(self, code: int) -> tuple[str, int | None]:
        """An exit code in words, with the last line that was printed; its signal, if it is one."""
        text, number = f"exit code {code}", None
        if code < 0:
            number = -code
            try:
                text = signal.Signals(number).name
            except ValueError:
                text = f"signal {number}"
        last = self._read_printed() or self._printed
        return (f"{text}: {last}" if last else text), number

    def _read_printed(self) -> str:
        """The last line that was printed since the last call."""
        pipe = self._process.stdout
        if pipe is None or pipe.closed:
            return ""
        data = b""
        os.set_blocking(pipe.fileno(), False)
        while (part := _read_some(pipe.fileno())) and len(data) < _STDERR_BYTES:
            data += part
        lines = data.decode("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return displayable_text(last, _SHOWN_CHARACTERS)


class FileProcess(Generic[M, R]):
    """The process that reads one file: receives its messages.

    Attributes:
        messages: checks what it sends.
        waited_seconds: how long its messages were waited for, in all.
    """

    def __init__(
        self, connection: socket.socket, receiver: Callable[[Receive], R], stopping: Callable[[], bool]
    ) -> None:
        connection.settimeout(_POLL_SECONDS)
        self._connection = connection
        self._stopping = stopping
        self._deadline = 0.0
        self.messages = receiver(self._receive)
        self.waited_seconds = 0.0

    def receive(self, seconds: float) -> M:
        """The next message, whole.

        Raises:
            MessageError: it breaks the format.
            EOFError: the process has ended.
            ConnectionError: as EOFError.
            LateError: it did not come within `seconds`.
            StoppedError: the run was asked to stop.
        """
        if self._stopping():
            raise StoppedError
        begun = time.monotonic()
        self._deadline = begun + seconds
        try:
            return cast("M", self.messages.next())
        finally:
            self.waited_seconds += time.monotonic() - begun

    def close(self) -> None:
        """Stop listening."""
        self._connection.close()

    def _receive(self, view: memoryview) -> None:
        _fill(self._connection, view, self._deadline, self._stopping)


def _launch(options: WorkerOptions) -> tuple[socket.socket, "subprocess.Popen[bytes]"]:
    """Start a process, and the socket that leads to it."""
    ours, theirs = socket.socketpair()
    tunables = [_MALLOC, *filter(None, [os.environ.get("GLIBC_TUNABLES")])]
    arguments = [str(theirs.fileno()), str(os.getpid()), pack(options).hex()]
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _WORKER, *arguments],
            stdin=subprocess.DEVNULL,
            # A pipe, since a confined process may write no file. Nobody reads it until the end.
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(theirs.fileno(),),
            # In a process group of its own: Ctrl-C reaches only the parent.
            process_group=0,
            env={
                **os.environ,
                "PYTHONPATH": import_path(),
                # One thread: a process that forks, or leaves the network, must not have others.
                "OPENBLAS_NUM_THREADS": "1",
                "GLIBC_TUNABLES": ":".join(tunables),
            },
        )
    return ours, process


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.kill()
    process.wait()


def _fill(connection: socket.socket, view: memoryview, deadline: float, stopping: Callable[[], bool]) -> None:
    """Fill a buffer with what comes from a socket that has a timeout.

    Raises:
        EOFError: the other side has closed it.
        LateError: the deadline has passed.
        StoppedError: the run was asked to stop.
    """
    while view:
        try:
            count = connection.recv_into(view)
            if count == 0:
                raise EOFError
            view = view[count:]
        except TimeoutError:
            if stopping():
                raise StoppedError from None
        if view and time.monotonic() > deadline:
            raise LateError


def _read_some(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _STDERR_BYTES)
    except BlockingIOError:
        return b""
