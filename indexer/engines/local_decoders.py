"""The decoders of the local engine: one runs in a worker process, the other in this process."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from multiprocessing import Pipe
from pathlib import Path
from typing import Literal, Protocol

from indexer.decode import (
    Alive,
    DecodedPart,
    DecodeJob,
    FileOutcome,
    FileUnreached,
    FileVerdict,
    decode_file,
)
from indexer.engines.worker import Ready, WorkerMessage
from indexer.library.records import stored_ns
from indexer.place import place_error, unreached_after_failure
from model.runtime.errors import ReelfindError

# With `-m`, the worker's classes would belong to `__main__`, and this process could not unpickle them.
_WORKER = "from indexer.engines.worker import run_worker; run_worker()"
_START_SECONDS = 120.0
_POLL_SECONDS = 0.2


class FileDecoder(Protocol):
    """Decodes files one after the other, in one thread."""

    def read(self, job: DecodeJob) -> Iterator[DecodedPart]:
        """Yield a file's segments, then its outcome; no outcome after a request to stop."""

    def close(self) -> None:
        """Free the decoder's resources."""


class InlineDecoder:
    """Decodes in this process, without isolation or timeout; for tests and for debugging."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def read(self, job: DecodeJob) -> Iterator[DecodedPart]:
        """See `FileDecoder`."""
        for message in decode_file(job):
            if self._stop.is_set():
                return
            if not isinstance(message, Alive):
                yield message

    def close(self) -> None:
        """See `FileDecoder`."""


class ProcessDecoder:
    """Decodes in a worker process, and starts another one when it crashes or makes no progress.

    Args:
        timeout_seconds: give up a file that makes no progress for this long.
        stop: when set, the current file is given up.

    Raises:
        ReelfindError: the worker process cannot be started.
    """

    def __init__(self, timeout_seconds: float, stop: threading.Event) -> None:
        self._timeout_seconds = timeout_seconds
        self._stop = stop
        self._start()

    def read(self, job: DecodeJob) -> Iterator[DecodedPart]:
        """See `FileDecoder`.

        Raises:
            ReelfindError: a new worker process cannot be started.
        """
        if self._process.poll() is not None:
            self._restart()
        try:
            self._connection.send(job)
            while True:
                message = self._receive(self._timeout_seconds)
                if message is None:
                    self._end()
                    if not self._stop.is_set():
                        reason = f"no progress for {self._timeout_seconds:g} seconds (--timeout)"
                        yield _given_up(job, "timed_out", reason)
                    return
                if isinstance(message, Ready | Alive):
                    continue
                yield message
                if isinstance(message, FileOutcome):
                    return
        except (EOFError, ConnectionError):
            self._end()
            yield _given_up(job, "corrupt", f"the decoder crashed on it ({self._exit_reason()})")

    def close(self) -> None:
        """See `FileDecoder`."""
        self._end()
        self._stderr.close()

    def _start(self) -> None:
        parent_end, worker_end = Pipe(duplex=True)
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  open as long as the process
        # The worker must import this code, and nothing from the current folder.
        root = str(Path(__file__).resolve().parents[2])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        with worker_end:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _WORKER, str(worker_end.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=self._stderr,
                stderr=self._stderr,
                pass_fds=(worker_end.fileno(),),
                # In a process group of its own: Ctrl-C reaches only the parent.
                process_group=0,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            )
        self._connection = parent_end
        try:
            ready = self._receive(_START_SECONDS)
        except (EOFError, ConnectionError):
            ready = None
        if ready is None and not self._stop.is_set():
            self._end()
            reason = self._exit_reason()
            self._stderr.close()
            raise ReelfindError(f"a decoding process could not be started: {reason}")

    def _restart(self) -> None:
        self._end()
        self._stderr.close()
        self._start()

    def _receive(self, seconds: float) -> WorkerMessage | None:
        """The next message; None after this many seconds without one, or after a request to stop."""
        deadline = time.monotonic() + seconds
        while not self._stop.is_set():
            remaining = deadline - time.monotonic()
            if self._connection.poll(min(max(remaining, 0.0), _POLL_SECONDS)):
                message: WorkerMessage = self._connection.recv()
                return message
            if remaining <= 0:
                return None
        return None

    def _end(self) -> None:
        self._connection.close()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def _exit_reason(self) -> str:
        """How the process ended: its signal or exit code, and the last line that it printed."""
        code = self._process.returncode
        if code < 0:
            try:
                text = signal.Signals(-code).name
            except ValueError:
                text = f"signal {-code}"
        else:
            text = f"exit code {code}"
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - 2000))
        lines = self._stderr.read().decode("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"{text}: {last[:200]}" if last else text


def _given_up(
    job: DecodeJob, verdict: Literal["corrupt", "timed_out"], reason: str
) -> FileVerdict | FileUnreached:
    """The outcome of a file whose decoder was ended: its fault only if its place can be reached."""
    lost = unreached_after_failure(job.file, job.device)
    try:
        stat = None if lost else job.file.stat()
    except OSError as error:
        lost, stat = f"cannot be reached: {place_error(error)}", None
    if stat is None:
        return FileUnreached(f"{lost} ({reason})")
    return FileVerdict(verdict, reason, None, "", stat.st_size, stored_ns(stat.st_mtime_ns))
