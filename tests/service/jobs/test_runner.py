"""The runner, with small programs in place of indexing runs."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from service.jobs.files import JobFiles
from service.jobs.records import IndexJobOptions, JobRecord
from service.jobs.runner import MOST_ATTEMPTS, JobRunner, JobWork
from service.jobs.store import JobStore, new_job_id
from tests.support.server import until

DEAF = """
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
print(1, flush=True)
time.sleep(60)
"""
CRASH = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"


class Bench:
    """A store, and runners on it whose jobs run `program`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = JobStore(folder)
        self.program = "pass"
        self.ended = threading.Semaphore(0)

    def add(self) -> str:
        return self.store.add(new_job_id(), [self.folder], IndexJobOptions(), None).job_id

    def files(self, job_id: str) -> JobFiles:
        return JobFiles(self.folder / job_id)

    def job(self, job_id: str) -> JobRecord:
        job = self.store.find(job_id)
        assert job is not None
        return job

    def runner(self, stop_seconds: float = 10.0) -> JobRunner:
        work = JobWork(
            self.folder / "library", self._launch, check=lambda _job: None, on_end=self.ended.release
        )
        runner = JobRunner(self.folder, self.store, work, stop_seconds)
        runner.start()
        return runner

    def _launch(self, job: JobRecord, files: JobFiles) -> subprocess.Popen[bytes]:
        with files.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-c", self.program, str(files.events)],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    with closing(bench.store):
        yield bench


def test_a_job_whose_server_dies_again_and_again_is_given_up(bench: Bench) -> None:
    given_up, again, cancelled = bench.add(), bench.add(), bench.add()
    for _ in range(MOST_ATTEMPTS - 1):
        bench.store.start(given_up)
        bench.store.put_back(given_up, "interrupted", None, counts=True)
    for job_id in (given_up, again, cancelled):
        bench.store.start(job_id)
    bench.store.cancel(cancelled)
    with closing(bench.runner()):
        until(lambda: bench.job(again).has_ended)
    assert bench.job(given_up).state == "failed"
    assert "The server ended 3 times" in str(bench.job(given_up).note)
    assert (bench.job(again).state, bench.job(again).attempts) == ("succeeded", 2)
    assert bench.job(cancelled).state == "cancelled"


def test_a_process_that_crashes_or_says_why_it_failed(bench: Bench) -> None:
    bench.program = CRASH
    with closing(bench.runner()):
        crashed = bench.add()
        until(lambda: bench.job(crashed).has_ended)
        bench.program = "import sys; print('first'); sys.exit('reelfind: the disk is full')"
        failed = bench.add()
        until(lambda: bench.job(failed).has_ended)
    assert bench.job(crashed).state == bench.job(failed).state == "failed"
    assert "SIGSEGV" in str(bench.job(crashed).note)
    assert bench.job(failed).note == "reelfind: the disk is full"
    assert bench.files(failed).read_log() == "first\nreelfind: the disk is full\n"


def test_a_process_that_does_not_end_is_killed_when_the_service_stops(bench: Bench) -> None:
    bench.program = DEAF
    runner = bench.runner(stop_seconds=0.2)
    job_id = bench.add()
    until(lambda: bench.files(job_id).read_log() == "1\n")
    runner.close()
    assert bench.ended.acquire(blocking=False)
    assert (bench.job(job_id).state, bench.job(job_id).attempts) == ("interrupted", 0)


def test_a_run_that_finds_the_library_busy_waits_and_runs_again(bench: Bench) -> None:
    busy = json.dumps({"event": "error", "at": "", "text": "It is being written by process 1.", "busy": True})
    bench.program = f"import sys; open(sys.argv[1], 'a').write({busy!r} + '\\n'); sys.exit(3)"
    with closing(bench.runner()):
        job_id = bench.add()
        # It is tried again and again: what is read in one go belongs together.
        waiting = ("queued", 0, True, "It is being written by process 1.")
        until(lambda: waiting == _told(bench.job(job_id)))
        bench.program = "pass"
        until(lambda: bench.job(job_id).has_ended)
    job = bench.job(job_id)
    assert (job.state, job.note, job.is_blocked, job.attempts) == ("succeeded", None, False, 1)
    states = [event.data["state"] for event in bench.files(job_id).read_events(0) if event.name == "state"]
    assert states[:3] == ["running", "queued", "running"]
    assert states[-1] == "succeeded"


def _told(job: JobRecord) -> tuple[str, int, bool, str | None]:
    return job.state, job.attempts, job.is_blocked, job.note


def test_of_two_services_one_runs_the_jobs(bench: Bench) -> None:
    with ExitStack() as stack:
        first = bench.runner()
        one = bench.add()
        until(lambda: bench.job(one).has_ended)
        # The second takes over when the first one stops.
        stack.enter_context(closing(bench.runner()))
        first.close()
        two = bench.add()
        until(lambda: bench.job(two).has_ended)
    assert [bench.job(each).attempts for each in (one, two)] == [1, 1]
