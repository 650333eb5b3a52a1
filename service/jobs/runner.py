"""Runs the jobs of a library, one after the other, each in a process of its own.

Of several services of one library, one runs the jobs: the one that holds the lock of their folder.
"""

import fcntl
import logging
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexer.library.lock import library_writer
from model.runtime.errors import ReelfindError
from model.runtime.exits import NOTHING_FOUND
from service.jobs.files import JobFiles
from service.jobs.records import JobRecord, JobState
from service.jobs.store import JobStore

logger = logging.getLogger("reelfind")

#: How often a job is started that the end of its server stopped, before it is given up.
MOST_ATTEMPTS = 3
#: Jobs that have ended, and whose logs are kept.
KEPT_JOBS = 100
#: Seconds that a job that was cancelled may take to save its work.
CANCEL_SECONDS = 30.0
# How often the queue, or the library's lock, is looked at, in seconds.
_IDLE_SECONDS = 1.0
_POLL_SECONDS = 0.2
_LOCK_NAME = "LOCK"


@dataclass(frozen=True)
class JobWork:
    """What a runner does its work with.

    Attributes:
        library: the library's folder.
        launch: starts the process of a job.
        check: raises ReelfindError where a job may not run any more.
        on_end: called after each run.
    """

    library: Path
    launch: Callable[[JobRecord, JobFiles], "subprocess.Popen[bytes]"]
    check: Callable[[JobRecord], None]
    on_end: Callable[[], None]


class JobRunner:
    """A thread that runs the jobs of a store; `folder` holds the store and a folder for each job."""

    def __init__(self, folder: Path, store: JobStore, work: JobWork, stop_seconds: float) -> None:
        """`stop_seconds` is how long `close` lets a job save its work."""
        self._folder = folder
        self._store = store
        self._work = work
        self._stop_seconds = stop_seconds
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._lock: int | None = None
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)

    def start(self) -> None:
        """Begin to run jobs."""
        self._thread.start()

    def wake(self) -> None:
        """Look at the queue now."""
        self._wake.set()

    def close(self) -> None:
        """Interrupt the job that runs, if there is one; it goes on at the next start."""
        self._closing.set()
        self._wake.set()
        self._thread.join()
        if self._lock is not None:
            os.close(self._lock)

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                has_run = self._turn()
            except Exception:
                logger.exception("running jobs failed; trying again")
                has_run = False
            if not has_run:
                self._wake.wait(_IDLE_SECONDS)
                self._wake.clear()

    def _turn(self) -> bool:
        """Run the next job. → Whether there was one that could run."""
        if self._lock is None and not self._take_lock():
            return False
        job = self._store.next_waiting()
        if job is None:
            return False
        writer = library_writer(self._work.library)
        if writer is not None:
            self._block(job, f"The library is being written by {writer}: the job waits until it is done.")
            return False
        self._run_job(job)
        for old in self._store.remove_old(KEPT_JOBS):
            shutil.rmtree(self._folder / old, ignore_errors=True)
        return True

    def _take_lock(self) -> bool:
        """Become the one who runs the jobs, and put back those that another runner left."""
        handle = os.open(self._folder / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        self._lock = handle
        for job in self._store.in_state("running"):
            files = self._files_of(job.job_id)
            if job.is_cancelling:
                self._end(job, files, "cancelled", None, None)
            elif job.attempts >= MOST_ATTEMPTS:
                note = f"The server ended {job.attempts} times while the job ran; it is not started again."
                self._end(job, files, "failed", note, None)
            else:
                note = "The server ended while the job ran: it is started again."
                files.say_state("interrupted", note=note)
                self._store.put_back(job.job_id, "interrupted", note, counts=True)
        return True

    def _block(self, job: JobRecord, note: str) -> None:
        if self._store.block(job.job_id, note):
            self._files_of(job.job_id).say_state(job.state, blocked=True, note=note)

    def _run_job(self, job: JobRecord) -> None:
        files = self._files_of(job.job_id)
        if not self._store.start(job.job_id):
            return
        files.say_state("running", attempt=job.attempts + 1)
        begin = files.events_end()
        try:
            self._work.check(job)
            process = self._work.launch(job, files)
        except (ReelfindError, OSError) as error:
            self._end(job, files, "failed", str(error), None)
            return
        try:
            code, was_cancelled = self._wait(process, job.job_id, files)
        except Exception:
            logger.exception("following job %s failed", job.job_id)
            _kill(process)
            self._end(job, files, "failed", "The service failed while the job ran: its log says how.", None)
            return
        said = files.latest("error", begin)
        self._conclude(job, files, code, said, was_cancelled=was_cancelled)
        try:
            self._work.on_end()
        except Exception:
            logger.exception("looking for a new snapshot failed")

    def _wait(self, process: "subprocess.Popen[bytes]", job_id: str, files: JobFiles) -> tuple[int, bool]:
        """Wait for a process, or end it. → Its exit code, and whether the job was cancelled."""
        deadline: float | None = None
        was_cancelled = False
        while process.poll() is None:
            if deadline is None:
                was_cancelled = self._is_cancelled(job_id)
                if was_cancelled or self._closing.is_set():
                    process.send_signal(signal.SIGINT)
                    grace = self._stop_seconds if self._closing.is_set() else CANCEL_SECONDS
                    deadline = time.monotonic() + grace
            elif time.monotonic() > deadline:
                _kill(process)
                break
            files.trim_log()
            if self._closing.is_set():
                time.sleep(_POLL_SECONDS)
            else:
                self._wake.wait(_POLL_SECONDS)
                self._wake.clear()
        return process.wait(), was_cancelled or self._is_cancelled(job_id)

    def _files_of(self, job_id: str) -> JobFiles:
        return JobFiles(self._folder / job_id)

    def _is_cancelled(self, job_id: str) -> bool:
        job = self._store.find(job_id)
        return job is not None and job.is_cancelling

    def _conclude(
        self,
        job: JobRecord,
        files: JobFiles,
        code: int,
        error: dict[str, Any] | None,
        *,
        was_cancelled: bool,
    ) -> None:
        """Note what became of a job whose process has ended, and with which error."""
        if code == 0:
            self._end(job, files, "succeeded", None, code)
        elif was_cancelled:
            self._end(job, files, "cancelled", None, code)
        elif self._closing.is_set():
            note = "The server was stopped while the job ran: it goes on when the server is started again."
            files.say_state("interrupted", note=note)
            self._store.put_back(job.job_id, "interrupted", note, counts=False)
        elif error is not None and error.get("busy"):
            self._store.put_back(job.job_id, "queued", None, counts=False)
            self._block(job, str(error["text"]))
        elif code == NOTHING_FOUND and files.read_summary():
            note = "Nothing that was found can be searched. The job's events and its log say why."
            self._end(job, files, "failed", note, code)
        elif code < 0:
            note = (
                f"Its process was ended by {_signal_name(-code)}. Where memory ran out, give the service "
                "more, or raise REELFIND_JOB_MEMORY_MB."
            )
            self._end(job, files, "failed", note, code)
        else:
            said = str(error["text"]) if error is not None else files.last_line()
            self._end(job, files, "failed", said or f"Its process ended with exit code {code}.", code)

    def _end(
        self, job: JobRecord, files: JobFiles, state: JobState, note: str | None, code: int | None
    ) -> None:
        # First the event: who follows the events must not find a job that has ended without it.
        files.say_state(state, note=note)
        self._store.end(job.job_id, state, note, code, files.read_summary())
        logger.info("job %s %s%s", job.job_id, state, "" if note is None else f": {note}")


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End a process at once, and its decoders, which are in its session."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _signal_name(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
