"""Answers of the service about jobs and uploads; see `search_answers`."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from service.client.search_answers import Answer


class JobProgress(Answer):
    """How far a run is."""

    stage: str
    done: int
    total: int
    failed: int
    video_seconds: float
    elapsed_seconds: float
    seconds_left: float | None = None
    path: str | None = None


class JobSummary(Answer):
    """What a run did."""

    files: int
    unchanged: int
    verdicts: dict[str, int]
    failures: int
    still_written: int
    not_reachable: int
    video_seconds: float
    elapsed_seconds: float
    snapshot: int | None = None


class Job(Answer):
    """An indexing run that a client has started."""

    job_id: str
    state: str
    waits_for_library: bool
    is_cancelling: bool
    note: str | None = None
    paths: list[str]
    prune: bool
    retry_failed: bool
    include: list[str]
    exclude: list[str]
    attempts: int
    created_by: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    exit_code: int | None = None
    progress: JobProgress | None = None
    summary: JobSummary | None = None
    events_url: str
    log_url: str


class JobList(Answer):
    """Jobs, the newest first."""

    jobs: list[Job]
    total: int


@dataclass(frozen=True)
class JobEvent:
    """Something that happened in a job.

    Attributes:
        event_id: where it stands among the events of the job.
        name: what it is, such as `state`, `progress` or `problem`.
        data: what it says; the OpenAPI document lists the fields.
    """

    event_id: str
    name: str
    data: dict[str, Any]


class Upload(Answer):
    """A video that arrives in parts."""

    upload_id: str
    name: str
    bytes: int
    offset: int


class UploadedVideo(Answer):
    """A video that was uploaded, and the job that indexes it."""

    path: str
    bytes: int
    video_id: str
    job: Job
