"""The queue in its file."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from service.errors import JobStoreError
from service.jobs.records import WAITING, IndexJobOptions
from service.jobs.store import FILE_NAME, JobStore, new_job_id

OPTIONS = IndexJobOptions(prune=True, include=("*.LRV",))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    with closing(JobStore(tmp_path)) as store:
        yield store


def test_jobs_are_read_as_they_were_written(store: JobStore, tmp_path: Path) -> None:
    path = Path(os.fsdecode(b"/media/caf\xe9"))
    job = store.add(new_job_id(), [path], OPTIONS, "Ada")
    with closing(JobStore(tmp_path)) as other:
        assert other.find(job.job_id) == job
    assert (job.paths, job.options, job.created_by, job.state) == ((path,), OPTIONS, "Ada", "queued")
    assert store.find("0" * 16) is None


def test_the_oldest_job_is_next_also_after_it_was_put_back(store: JobStore) -> None:
    first, second = (store.add(new_job_id(), [Path("/a")], OPTIONS, None).job_id for _ in range(2))
    assert store.start(first)
    assert not store.start(first)
    waiting = store.next_waiting()
    assert waiting is not None
    assert waiting.job_id == second
    store.put_back(first, "interrupted", "It stopped.", counts=True)
    waiting = store.next_waiting()
    assert waiting is not None
    assert (waiting.job_id, waiting.attempts, waiting.note) == (first, 1, "It stopped.")
    assert store.start(first)
    store.put_back(first, "queued", None, counts=False)
    assert [(job.job_id, job.attempts) for job in store.in_state(*WAITING)] == [(first, 1), (second, 0)]


def test_a_cancelled_job_is_not_started(store: JobStore) -> None:
    waiting, running = (store.add(new_job_id(), [Path("/a")], OPTIONS, None).job_id for _ in range(2))
    assert store.start(running)
    for job_id in (waiting, running):
        store.cancel(job_id)
    assert not store.start(waiting)
    found = {job.job_id: (job.state, job.is_cancelling) for job in store.all()}
    assert found == {waiting: ("cancelled", False), running: ("running", True)}
    store.end(running, "cancelled", None, 130, {"files": 1})
    before = store.cancel(running)
    assert before is not None
    assert (before.state, before.exit_code, before.summary) == ("cancelled", 130, {"files": 1})


def test_old_jobs_are_forgotten(store: JobStore) -> None:
    ids = [store.add(new_job_id(), [Path("/a")], OPTIONS, None).job_id for _ in range(5)]
    for job_id in ids[:4]:
        store.end(job_id, "succeeded", None, 0, {})
    assert store.remove_old(2) == ids[:2]
    assert [job.job_id for job in store.all()] == ids[:1:-1]


def test_a_file_of_a_later_version_or_of_nonsense_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(JobStoreError, match="format 99"):
        JobStore(tmp_path)
    (tmp_path / FILE_NAME).write_bytes(b"nonsense" * 1000)
    with pytest.raises(JobStoreError, match="move the file away"):
        JobStore(tmp_path)
