"""The requests about jobs and uploads; see `calls`."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import Unpack
from urllib.parse import quote

import httpx

from service.client.call import Call, reading
from service.client.errors import UnexpectedAnswerError
from service.client.job_answers import Job, JobList, Upload, UploadedVideo
from service.client.requests import IndexJobOptions, JobListOptions

PART_TYPE = "application/offset+octet-stream"
# With its last part a video is read once more, for its checksum.
_PART_SECONDS = 600.0
_READ_UPLOADED = reading(UploadedVideo)


def index(paths: Sequence[PurePath | str], **options: Unpack[IndexJobOptions]) -> Call[Job]:
    """Put an indexing run of files and folders of the service into its queue.

    Args:
        paths: as the service has them, in its media folders.
        options: see `IndexJobOptions`.
    """
    body = {"paths": [str(path) for path in paths], **options}
    return Call("POST", "/v1/jobs/index", reading(Job), body=body, is_repeatable=False)


def jobs(**options: Unpack[JobListOptions]) -> Call[JobList]:
    """Jobs, the newest first."""
    params = {**options}
    return Call("GET", "/v1/jobs", reading(JobList), params=params)  # type: ignore[arg-type]


def job(job_id: str) -> Call[Job]:
    """How far a job is."""
    return Call("GET", _job(job_id), reading(Job))


def cancel_job(job_id: str) -> Call[Job]:
    """End a job; one that runs saves what it has done."""
    return Call("DELETE", _job(job_id), reading(Job), is_repeatable=False)


def job_log(job_id: str) -> Call[str]:
    """What a job printed."""
    return Call("GET", f"{_job(job_id)}/log", lambda response: response.text)


def job_events(job_id: str, *, after: str | None = None) -> Call[None]:
    """Every event of a job so far, and then each as it happens, until the job has ended.

    Args:
        job_id: the job.
        after: the `event_id` of an event: only those after it.
    """
    headers = {} if after is None else {"last-event-id": after}
    return Call("GET", f"{_job(job_id)}/events", lambda _response: None, headers=headers)


def begin_upload(name: str, num_bytes: int) -> Call[Upload]:
    """Say how large a video is that will arrive in parts."""
    return Call("POST", "/v1/uploads", reading(Upload), body={"name": name, "bytes": num_bytes})


def upload_state(upload_id: str) -> Call[Upload]:
    """How much of an upload has arrived."""
    return Call("GET", _upload(upload_id), reading(Upload))


def send_part(upload_id: str, offset: int, part: bytes) -> Call[UploadedVideo | int]:
    """Send bytes from `offset` on: how many of all have arrived, or after the last ones the video."""
    return Call(
        "PATCH",
        _upload(upload_id),
        _part_result,
        content=part,
        headers={"content-type": PART_TYPE, "upload-offset": str(offset)},
        is_repeatable=False,
        answer_seconds=_PART_SECONDS,
    )


def drop_upload(upload_id: str) -> Call[None]:
    """Remove what has arrived of an upload."""
    return Call("DELETE", _upload(upload_id), lambda _response: None, is_repeatable=False)


def _part_result(response: httpx.Response) -> UploadedVideo | int:
    if response.status_code != httpx.codes.NO_CONTENT:
        return _READ_UPLOADED(response)
    offset = response.headers.get("upload-offset", "")
    if not offset.isdecimal():
        raise UnexpectedAnswerError(f"{response.request.url} does not say how many bytes have arrived.")
    return int(offset)


def _job(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"


def _upload(upload_id: str) -> str:
    return f"/v1/uploads/{quote(upload_id, safe='')}"
