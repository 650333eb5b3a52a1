"""The jobs of a library, as clients see them."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from indexer.library.trust import library_key
from model.runtime.errors import InputError
from model.runtime.remote.path import real_path
from service.errors import JobEndedError, JobStoreError, NotFoundError, TooManyJobsError
from service.jobs.command import launch
from service.jobs.files import JobFiles
from service.jobs.paths import allowed_path, is_allowed
from service.jobs.records import WAITING, IndexJobOptions, JobRecord
from service.jobs.resumable import ResumableUploads
from service.jobs.runner import JobRunner, JobWork
from service.jobs.store import JobStore, new_job_id
from service.settings import Settings
from service.state import making_state

#: Jobs that may wait.
MOST_WAITING = 100
#: The folder, in that of the jobs, of the uploads in parts.
UPLOADS = "uploads"


class Jobs:
    """Adds, finds and cancels jobs, and runs them. Every method may be called from any thread.

    Args:
        settings: the service's settings.
        roots: gives the folders that may be indexed, with links resolved.

    Raises:
        InputError: the state folder cannot be used.
        JobStoreError: the file of jobs cannot be used.
    """

    def __init__(self, settings: Settings, roots: Callable[[], frozenset[Path]]) -> None:
        self._settings = settings
        self._roots = roots
        self._folder = jobs_folder(settings)
        #: The uploads in parts.
        self.uploads = ResumableUploads(self._folder / UPLOADS)
        self._store = JobStore(self._folder)
        self._runner: JobRunner | None = None

    def start(self, on_end: Callable[[], None]) -> None:
        """Begin to run jobs. `on_end` is called after each run, when there may be a new snapshot."""
        settings = self._settings
        work = JobWork(
            settings.library,
            launch=lambda job, files: launch(job, files, settings),
            check=self._check,
            on_end=on_end,
        )
        self._runner = JobRunner(self._folder, self._store, work, settings.shutdown_seconds)
        self._runner.start()

    def close(self) -> None:
        """Interrupt the job that runs, if there is one; it goes on at the next start."""
        if self._runner is not None:
            self._runner.close()
        self._store.close()

    def check_room(self) -> None:
        """Check that a job may be added.

        Raises:
            TooManyJobsError: too many wait.
        """
        if len(self._store.in_state(*WAITING)) >= MOST_WAITING:
            raise TooManyJobsError(
                f"{MOST_WAITING} jobs wait, which is the limit. Wait for some to end, or cancel some.",
                retry_seconds=60.0,
            )

    def allowed(self, paths: Sequence[str], within: Path | None) -> list[Path]:
        """The real paths that a client names, see `allowed_path`; each once."""
        roots = self._roots()
        found = [allowed_path(text, roots, within, f"/paths/{place}") for place, text in enumerate(paths)]
        return list(dict.fromkeys(found))

    def add(
        self, paths: Sequence[Path], options: IndexJobOptions, created_by: str | None = None
    ) -> JobRecord:
        """Put a job at the end of the queue that indexes `paths`, which were checked."""
        job_id = new_job_id()
        # First the event: the job may run as soon as it is stored.
        files = JobFiles(self._folder / job_id)
        files.say_state("queued")
        try:
            job = self._store.add(job_id, paths, options, created_by)
        except JobStoreError:
            shutil.rmtree(files.folder, ignore_errors=True)
            raise
        self._wake()
        return job

    def find(self, job_id: str, within: Path | None) -> JobRecord:
        """The job with an id.

        Raises:
            NotFoundError: there is none, or it is not in the folder that the client is limited to.
        """
        job = self._store.find(job_id)
        if job is None or not job.lies_in(within):
            raise NotFoundError(f"There is no job {job_id[:64]!r}. GET /v1/jobs lists those that are kept.")
        return job

    def all(self, within: Path | None) -> list[JobRecord]:
        """The jobs of a folder, the newest first."""
        return [job for job in self._store.all() if job.lies_in(within)]

    def cancel(self, job_id: str, within: Path | None) -> JobRecord:
        """End a job. What a run has done by then is kept.

        Raises:
            NotFoundError: there is none, or it is not in the folder that the client is limited to.
            JobEndedError: it has ended already.
        """
        job = self.find(job_id, within)
        before = self._store.cancel(job_id)
        if before is not None and before.has_ended:
            raise JobEndedError(f"Job {job_id} has ended already: it {before.state}.")
        if before is not None and before.state in WAITING:
            self.files_of(job).say_state("cancelled")
        self._wake()
        return self.find(job_id, None)

    def files_of(self, job: JobRecord) -> JobFiles:
        """The files of a job."""
        return JobFiles(self._folder / job.job_id)

    def _wake(self) -> None:
        if self._runner is not None:
            self._runner.wake()

    def _check(self, job: JobRecord) -> None:
        """Check again what a job indexes: a link may lead elsewhere by now.

        Raises:
            InputError: it may not be indexed any more.
        """
        roots = self._roots()
        for path in job.paths:
            if real_path(path) != path or not is_allowed(path, roots, None):
                raise InputError(f"{path} is no longer in one of the folders that may be indexed")


def jobs_folder(settings: Settings) -> Path:
    """The folder of a library's jobs, which is made where it does not exist.

    Raises:
        InputError: it cannot be made.
    """
    folder = settings.state_folder / "jobs" / library_key(settings.library)[:16]
    with making_state(settings.state_folder):
        for each in (folder.parent, folder, folder / UPLOADS):
            each.mkdir(mode=0o700, exist_ok=True)
    return folder
