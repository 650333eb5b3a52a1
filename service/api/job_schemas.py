"""The wire format of jobs and uploads. Times are in UTC; seconds count from the start of the job's step."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.jobs.records import JobState

_Pattern = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00-\x1f]+$")]
_MOST_PATHS, _MOST_PATTERNS, _MOST_PATH_CHARACTERS = 100, 100, 4096


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class IndexJobRequest(_Request):
    """What to index, and how: see `reelfind index --help`."""

    paths: list[Annotated[str, Field(min_length=1, max_length=_MOST_PATH_CHARACTERS)]] = Field(
        min_length=1,
        max_length=_MOST_PATHS,
        description="Files and folders in the media folders (`REELFIND_MEDIA_ROOTS`): absolute paths, "
        "addresses such as `s3://BUCKET/PREFIX`, or as answers show them.",
        examples=[["/media/2024"]],
    )
    prune: bool = Field(
        False, description="Forget files under `paths` that no longer exist, or that a rule leaves out now."
    )
    retry_failed: bool = Field(False, description="Read files again that failed before.")
    include: list[_Pattern] = Field(
        [],
        max_length=_MOST_PATTERNS,
        description="Take files that another rule leaves out: gitignore's syntax.",
    )
    exclude: list[_Pattern] = Field(
        [],
        max_length=_MOST_PATTERNS,
        description="Leave out files and folders: gitignore's syntax.",
        examples=[["*.LRV"]],
    )


class JobProgress(BaseModel):
    """How far a run is."""

    stage: str = Field(
        description="`pictures`, or what runs after them: `speech`, `screen`, `shots`.", examples=["pictures"]
    )
    done: int = Field(description="Files that are done.")
    total: int = Field(description="Files that this stage has to read.")
    failed: int = Field(description="Those of them that are not, or only partly, read.")
    video_seconds: float = Field(description="Seconds of video that are read.")
    elapsed_seconds: float = Field(description="Seconds since the stage began.")
    seconds_left: float | None = Field(
        description="Seconds that the stage is likely to take on; null: not known."
    )
    path: str | None = Field(description="A file that is being read; null: none yet.")


class JobSummary(BaseModel):
    """What a run did."""

    files: int = Field(description="Files that were found.")
    unchanged: int = Field(description="Files that were not read again.")
    verdicts: dict[str, int] = Field(description="How many files of this run have each verdict.")
    failures: int = Field(description="Files of this run that are not, or only partly, in the library.")
    still_written: int = Field(description="Files that were still being written.")
    not_reachable: int = Field(description="Files that could not be reached.")
    video_seconds: float = Field(description="Length of the videos that were read.")
    elapsed_seconds: float = Field(description="Seconds that the run took.")
    snapshot: int | None = Field(description="The snapshot that was published; null: none.")


class Job(BaseModel):
    """An indexing run that a client has started."""

    job_id: str = Field(examples=["5f0c2a9be1d84377"])
    state: JobState = Field(
        description="`queued`: it waits; `interrupted`: the server ended while it ran, and it starts again."
    )
    waits_for_library: bool = Field(
        description="Whether it waits for another process that writes the library."
    )
    is_cancelling: bool = Field(description="Whether it was cancelled, and saves what it has done.")
    note: str | None = Field(description="Why it waits, or why it failed. Whole for administrators alone.")
    created_by: str | None = Field(
        description="The name of the key or user that started it; null for others than administrators."
    )
    paths: list[str] = Field(description="What it indexes.")
    prune: bool
    retry_failed: bool
    include: list[str]
    exclude: list[str]
    attempts: int = Field(description="How often it was started.")
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    exit_code: int | None = Field(description="That of `reelfind index`.")
    progress: JobProgress | None = Field(description="How far it is, or was; null: it has not begun.")
    summary: JobSummary | None = Field(description="What it did; null: it has not ended, or failed at once.")
    events_url: str = Field(description="Its events, as they happen.")
    log_url: str = Field(description="What it printed.")


class JobList(BaseModel):
    """Jobs, the newest first."""

    jobs: list[Job]
    total: int = Field(description="Number of all jobs that are kept.")


class JobListQuery(BaseModel):
    """Which jobs."""

    model_config = ConfigDict(extra="forbid")

    state: Literal["waiting", "running", "ended"] | None = Field(
        None, description="Only jobs that wait, run, or have ended."
    )
    limit: int = Field(20, ge=1, le=200, description="Maximum number of jobs to return.")
    offset: int = Field(0, ge=0, le=10_000, description="Number of jobs to leave out before.")


class UploadedVideo(BaseModel):
    """A video that was uploaded, and the job that indexes it."""

    path: str = Field(description="Where it is stored.")
    bytes: int = Field(description="Its size.")
    video_id: str = Field(description="The id that it will have in the library.")
    job: Job


class NewUploadRequest(_Request):
    """A video that will arrive in parts."""

    name: str = Field(
        min_length=1,
        max_length=1000,
        description="Name of the file. It may be changed, so that it is safe and no file is overwritten.",
        examples=["beach.mp4"],
    )
    bytes: int = Field(ge=1, description="Its size.")


class Upload(BaseModel):
    """A video that arrives in parts."""

    upload_id: str = Field(examples=["9c1d4e8b70a2f356"])
    name: str
    bytes: int = Field(description="Its size.")
    offset: int = Field(description="How many bytes have arrived: where the next part begins.")


#: What is said of the body of an upload in parts.
PART_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/offset+octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
