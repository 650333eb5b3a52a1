"""The file `jobs.sqlite`: the queue of jobs, and those that have ended.

It uses SQLite's rollback journal: its disk may be a share of the network, where shared memory does not work.
"""

import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from model.runtime.remote.path import media_path
from service.errors import JobStoreError
from service.jobs.records import ENDED, WAITING, IndexJobOptions, JobRecord, JobState

FILE_NAME = "jobs.sqlite"
_FORMAT = 1
_BUSY_SECONDS = 5.0
_TABLE = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id TEXT NOT NULL UNIQUE,
    paths TEXT NOT NULL,
    options TEXT NOT NULL,
    created_by TEXT,
    state TEXT NOT NULL,
    note TEXT,
    is_blocked INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    is_cancelling INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL,
    started_at REAL,
    ended_at REAL,
    exit_code INTEGER,
    summary TEXT NOT NULL DEFAULT '{}'
) STRICT
"""
_COLUMNS = (
    "job_id, paths, options, created_by, state, note, is_blocked, attempts, is_cancelling, created_at, "
    "started_at, ended_at, exit_code, summary"
)
_SELECT = f"SELECT {_COLUMNS} FROM jobs"  # noqa: S608  constant


def new_job_id() -> str:
    """An id for a new job."""
    return secrets.token_hex(8)


class JobStore:
    """The file of jobs. Every method may be called from any thread, and raises JobStoreError."""

    def __init__(self, folder: Path) -> None:
        """Open the file in a folder that exists; it is made where it does not exist.

        Raises:
            JobStoreError: it cannot be opened, or a later version wrote it.
        """
        self.path = folder / FILE_NAME
        self._lock = threading.Lock()
        try:
            self._database = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, check_same_thread=False)
        except sqlite3.Error as error:
            raise JobStoreError(
                f"{self.path} cannot be opened ({error}): check the folder's owner"
            ) from error
        with self._transaction() as database:
            (found,) = database.execute("PRAGMA user_version").fetchone()
            if found > _FORMAT:
                raise JobStoreError(
                    f"{self.path} has format {found}, this program reads {_FORMAT}: use the version of "
                    "Reelfind that wrote it, or move the file away, which forgets its jobs"
                )
            if found == 0:
                database.execute(_TABLE)
                database.execute(f"PRAGMA user_version = {_FORMAT}")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def add(
        self, job_id: str, paths: Sequence[Path], options: IndexJobOptions, created_by: str | None
    ) -> JobRecord:
        """Put a job at the end of the queue: from now on it may run. `job_id` is of `new_job_id`."""
        # ASCII: names that are not UTF-8 are kept as the escapes of their bytes.
        row = (job_id, json.dumps([str(path) for path in paths]), json.dumps(asdict(options)), created_by)
        with self._transaction() as database:
            added = database.execute(
                "INSERT INTO jobs (job_id, paths, options, created_by, state, created_at) "  # noqa: S608
                f"VALUES (?, ?, ?, ?, 'queued', ?) RETURNING {_COLUMNS}",
                (*row, time.time()),
            ).fetchone()
        return _record(added)

    def find(self, job_id: str) -> JobRecord | None:
        """The job with an id; None: there is none."""
        rows = self._read(f"{_SELECT} WHERE job_id = ?", (job_id,))
        return _record(rows[0]) if rows else None

    def all(self) -> list[JobRecord]:
        """All jobs, the newest first."""
        return [_record(row) for row in self._read(f"{_SELECT} ORDER BY number DESC")]

    def in_state(self, *states: JobState) -> list[JobRecord]:
        """The jobs in these states, the oldest first."""
        marks = ", ".join("?" * len(states))
        rows = self._read(f"{_SELECT} WHERE state IN ({marks}) ORDER BY number", states)
        return [_record(row) for row in rows]

    def next_waiting(self) -> JobRecord | None:
        """The job to run next; None: none waits."""
        waiting = self.in_state(*WAITING)
        return waiting[0] if waiting else None

    def start(self, job_id: str) -> bool:
        """Note that a job runs. → Whether it may: it was not cancelled meanwhile."""
        with self._transaction() as database:
            changed = database.execute(
                "UPDATE jobs SET state = 'running', note = NULL, is_blocked = 0, attempts = attempts + 1, "
                "started_at = ? WHERE job_id = ? AND state IN ('queued', 'interrupted')",
                (time.time(), job_id),
            )
            return changed.rowcount > 0

    def block(self, job_id: str, note: str) -> bool:
        """Note that a job waits for another process. → Whether that is new."""
        with self._transaction() as database:
            changed = database.execute(
                "UPDATE jobs SET is_blocked = 1, note = ? WHERE job_id = ? AND (is_blocked = 0 OR note != ?)",
                (note, job_id, note),
            )
            return changed.rowcount > 0

    def put_back(self, job_id: str, state: JobState, note: str | None, *, counts: bool) -> None:
        """Let a job that ran wait again, before those that came later.

        Args:
            job_id: the job.
            state: `queued` or `interrupted`.
            note: why.
            counts: whether the attempt counts.
        """
        with self._transaction() as database:
            database.execute(
                "UPDATE jobs SET state = ?, note = ?, attempts = attempts - ? WHERE job_id = ?",
                (state, note, 0 if counts else 1, job_id),
            )

    def end(
        self, job_id: str, state: JobState, note: str | None, exit_code: int | None, summary: dict[str, Any]
    ) -> None:
        """Note how a job came to its end."""
        with self._transaction() as database:
            database.execute(
                "UPDATE jobs SET state = ?, note = ?, is_blocked = 0, is_cancelling = 0, exit_code = ?, "
                "summary = ?, ended_at = ? WHERE job_id = ?",
                (state, note, exit_code, json.dumps(summary), time.time(), job_id),
            )

    def cancel(self, job_id: str) -> JobRecord | None:
        """End a job that waits, and ask one that runs to end. → The job before that; None: there is none."""
        with self._transaction() as database:
            # The job must not end between the look and the change.
            database.execute("BEGIN IMMEDIATE")
            row = database.execute(f"{_SELECT} WHERE job_id = ?", (job_id,)).fetchone()
            database.execute(
                "UPDATE jobs SET state = 'cancelled', note = NULL, is_blocked = 0, ended_at = ? "
                "WHERE job_id = ? AND state IN ('queued', 'interrupted')",
                (time.time(), job_id),
            )
            database.execute(
                "UPDATE jobs SET is_cancelling = 1 WHERE job_id = ? AND state = 'running'", (job_id,)
            )
        return None if row is None else _record(row)

    def remove_old(self, keep: int) -> list[str]:
        """Forget the jobs that have ended, but the newest `keep`. → Their ids."""
        marks = ", ".join("?" * len(ENDED))
        with self._transaction() as database:
            rows = database.execute(
                f"DELETE FROM jobs WHERE number IN (SELECT number FROM jobs WHERE state IN ({marks}) "  # noqa: S608
                "ORDER BY number DESC LIMIT -1 OFFSET ?) RETURNING job_id",
                (*ENDED, keep),
            ).fetchall()
        return [job_id for (job_id,) in rows]

    def _read(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._transaction() as database:
            return database.execute(statement, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                with self._database:
                    yield self._database
            except sqlite3.Error as error:
                raise JobStoreError(
                    f"{self.path} cannot be read or written ({error}): check the disk and the folder's "
                    "owner, or move the file away, which forgets its jobs"
                ) from error


def _record(row: tuple[Any, ...]) -> JobRecord:
    job_id, paths, options, created_by, state, note, is_blocked, attempts, is_cancelling, *rest = row
    created_at, started_at, ended_at, exit_code, summary = rest
    read = json.loads(options)
    return JobRecord(
        job_id=job_id,
        paths=tuple(map(media_path, json.loads(paths))),
        options=IndexJobOptions(
            prune=read["prune"],
            retry_failed=read["retry_failed"],
            include=tuple(read["include"]),
            exclude=tuple(read["exclude"]),
        ),
        created_by=created_by,
        state=state,
        note=note,
        is_blocked=bool(is_blocked),
        attempts=attempts,
        is_cancelling=bool(is_cancelling),
        created_at=created_at,
        started_at=started_at,
        ended_at=ended_at,
        exit_code=exit_code,
        summary=json.loads(summary),
    )
