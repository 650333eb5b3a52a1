"""Converts jobs and their events to the wire format, as far as who asks may know them."""

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from indexer.library.records import displayable
from service.api import job_schemas
from service.jobs.files import JobEvent, JobFiles
from service.jobs.records import JobRecord, JobState
from service.search.views import PathNames

#: What those are told who are no administrators: the full text may name any file.
_NOTES: Mapping[JobState, str | None] = {
    "queued": "The job waits.",
    "interrupted": "The server ended while the job ran: it is started again.",
    "failed": "The job failed. An administrator can read why in its log.",
}
_COUNTS_OF_ALL = ("num_videos", "num_segments")


@dataclass(frozen=True)
class JobView:
    """What of jobs somebody sees.

    Attributes:
        folder: the folder besides which there is nothing; None: everything is there.
        whole_texts: whether notes and errors are shown, which may name any file.
        names: how paths look to them.
    """

    folder: Path | None
    whole_texts: bool
    names: PathNames

    def shown(self, path: str) -> str:
        """How a path looks; for the media folders themselves, too."""
        return self.names.shown(f"{path}/").removesuffix("/") or posixpath.basename(path)


def job(record: JobRecord, files: JobFiles, view: JobView, prefix: str) -> job_schemas.Job:
    """A job; `prefix` is what stands before the service's own paths in addresses."""
    progress = files.latest("progress")
    url = f"{prefix}/v1/jobs/{record.job_id}"
    return job_schemas.Job(
        job_id=record.job_id,
        state=record.state,
        waits_for_library=record.is_blocked,
        is_cancelling=record.is_cancelling,
        note=record.note if view.whole_texts or record.note is None else _NOTES.get(record.state),
        created_by=record.created_by if view.whole_texts else None,
        paths=[view.shown(displayable(path)) for path in record.paths],
        prune=record.options.prune,
        retry_failed=record.options.retry_failed,
        include=list(record.options.include),
        exclude=list(record.options.exclude),
        attempts=record.attempts,
        created_at=_time(record.created_at),
        started_at=None if record.started_at is None else _time(record.started_at),
        ended_at=None if record.ended_at is None else _time(record.ended_at),
        exit_code=record.exit_code,
        progress=None if progress is None else job_schemas.JobProgress(**_told(progress, view)),
        summary=_summary(record.summary) if record.has_ended else None,
        events_url=f"{url}/events",
        log_url=f"{url}/log",
    )


def event_data(event: JobEvent, view: JobView) -> dict[str, Any] | None:
    """The fields of an event; None: it is not for who asks."""
    if not view.whole_texts and event.name == "note":
        return None
    return _told(event.data, view)


def _told(data: Mapping[str, Any], view: JobView) -> dict[str, Any]:
    told = dict(data)
    if isinstance(told.get("path"), str):
        told["path"] = view.shown(told["path"])
    if not view.whole_texts:
        told.pop("text", None)
        if "note" in told:
            told["note"] = _NOTES.get(told.get("state", "failed"))
    if view.folder is not None:
        for name in _COUNTS_OF_ALL:
            told.pop(name, None)
    return told


def _summary(summary: Mapping[str, Any]) -> job_schemas.JobSummary | None:
    if not summary:
        return None
    return job_schemas.JobSummary(
        files=summary["files"],
        unchanged=summary["unchanged"],
        verdicts={verdict: number for verdict, number in summary["verdicts"].items() if number},
        failures=len(summary["failures"]),
        still_written=len(summary["still_written"]),
        not_reachable=len(summary["not_reachable"]),
        video_seconds=summary["video_seconds"],
        elapsed_seconds=summary["elapsed_seconds"],
        snapshot=summary["snapshot"],
    )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
