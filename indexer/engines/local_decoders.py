"""Decoders of the local engine: one runs in a worker process, one in this process."""

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
    NEVER_READ,
    Alive,
    DecodedPart,
    DecodeJob,
    FileUnchanged,
    FileVerdict,
    decode,
)
from indexer.engines.worker import Ready, WorkerMessage
from model.runtime.errors import ReelfindError

# Not `-m`: its classes would be those of `__main__`, which this process cannot unpickle.
_WORKER = "from indexer.engines.worker import main; main()"
_START_SECONDS = 120.0
_POLL_SECONDS = 0.2


class FileDecoder(Protocol):
    """Decodes one file after the other, in one thread."""

    def read(self, job: DecodeJob) -> Iterator[DecodedPart]:
        """Yield a file's segments, then its outcome. Ends without an outcome when asked to stop."""

    def close(self) -> None:
        """Free what the decoder holds."""


class InlineDecoder:
    """Decodes in this process, without isolation or timeout; for tests and for debugging."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def read(self, job: DecodeJob) -> Iterator[DecodedPart]:
        """See `FileDecoder`."""
        for message in decode(job):
            if self._stop.is_set():
                return
            if not isinstance(message, Alive):
                yield message

    def close(self) -> None:
        """See `FileDecoder`."""


class ProcessDecoder:
    """Decodes in a worker process, which is replaced when it crashes or makes no progress.

    Args:
        timeout_seconds: a file from which nothing comes for so long is given up.
        stop: when set, the file at hand is given up.
    """

    def __init__(self, timeout_seconds: float, stop: threading.Event) -> None:
        self._timeout_seconds = timeout_seconds
        self._stop = stop
        self._start()

    def read(self, job: DecodeJob) -> Iterator[DecodedPart]:
        """See `FileDecoder`. Raises ReelfindError when a worker process cannot be started."""
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
                if isinstance(message, FileVerdict | FileUnchanged):
                    return
        except (EOFError, ConnectionError):
            self._end()
            yield _given_up(job, "corrupt", f"the decoder crashed on it ({self._how_it_ended()})")

    def close(self) -> None:
        """See `FileDecoder`."""
        self._end()
        self._stderr.close()

    def _start(self) -> None:
        parent_end, worker_end = Pipe(duplex=True)
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  open as long as the process
        # The worker must find this code, and nothing in the current folder, whatever that holds.
        root = str(Path(__file__).resolve().parents[2])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        with worker_end:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _WORKER, str(worker_end.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=self._stderr,
                stderr=self._stderr,
                pass_fds=(worker_end.fileno(),),
                # Out of the terminal's group: Ctrl-C reaches the parent only.
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
            why = self._how_it_ended()
            self._stderr.close()
            raise ReelfindError(f"a decoding process could not be started: {why}")

    def _restart(self) -> None:
        self._end()
        self._stderr.close()
        self._start()

    def _receive(self, seconds: float) -> WorkerMessage | None:
        """The next message; None after so long without one, or when asked to stop."""
        deadline = time.monotonic() + seconds
        while not self._stop.is_set():
            left = deadline - time.monotonic()
            if self._connection.poll(min(max(left, 0.0), _POLL_SECONDS)):
                message: WorkerMessage = self._connection.recv()
                return message
            if left <= 0:
                return None
        return None

    def _end(self) -> None:
        self._connection.close()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def _how_it_ended(self) -> str:
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


def _given_up(job: DecodeJob, verdict: Literal["corrupt", "timed_out"], reason: str) -> FileVerdict:
    try:
        stat = job.file.stat()
    except OSError:
        return FileVerdict(verdict, reason, None, "", 0, NEVER_READ)
    return FileVerdict(verdict, reason, None, "", stat.st_size, stat.st_mtime_ns)
