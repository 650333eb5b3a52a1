"""Jobs: indexing runs that clients start, follow and cancel."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse

from service.api import job_answers
from service.api.context import ContextDep
from service.api.event_stream import MEDIA_TYPE, event_stream
from service.api.job_schemas import IndexJobRequest, Job, JobList, JobListQuery
from service.api.jobs_on import JobsDep, view_of
from service.api.openapi_errors import error_responses
from service.api.principal import Principal, ScopedRoute, require
from service.jobs.records import ENDED, WAITING, IndexJobOptions, JobState

router = APIRouter(tags=["jobs"], route_class=ScopedRoute)

JobIdPath = Annotated[str, Path(description="Id of a job, from `POST /v1/jobs/index` or `GET /v1/jobs`.")]
_Reader = Annotated[Principal, Depends(require("index"))]
_OFF = {
    403: "The settings do not let clients start jobs, the scope is missing, or the Host or the Origin is not "
    "one of the service's."
}
_MEANINGS = {
    **_OFF,
    404: "There is no such job, or it is not kept any more.",
    409: "The job has ended.",
    503: "As many jobs wait as may, or the file of jobs cannot be read.",
}
_STATES: dict[str, tuple[JobState, ...]] = {"waiting": WAITING, "running": ("running",), "ended": ENDED}
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events. `data` is JSON with `event` and `at`. `state`: `state`, `note`, "
        "`attempt`, `blocked`; `scanned`: `files`, `to_read`, `unchanged`, `failed_before`; `progress`: see "
        "`JobProgress`; `problem`: `kind`, `path`, `reason`; `published`: `snapshot`; `note` and `error`: "
        "`text`.",
        "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
    },
    204: {"description": "The job has ended, and the client has all of its events."},
    **error_responses(404, 503, meanings=_MEANINGS),
}


@router.post(
    "/v1/jobs/index",
    operation_id="startIndexJob",
    summary="Index files and folders",
    status_code=202,
    responses=error_responses(413, 415, 422, 503, meanings=_MEANINGS),
)
def start_index_job(
    wanted: IndexJobRequest,
    request: Request,
    response: Response,
    context: ContextDep,
    jobs: JobsDep,
    principal: Annotated[Principal, Depends(require("index", action="job.start"))],
) -> Job:
    """Put an indexing run into the queue: jobs run one after the other. When it publishes a snapshot, that is
    served at once.

    The run is `reelfind index` in a process of its own. It waits while another process writes the library.
    """
    view = view_of(context, principal)
    paths = jobs.allowed([view.names.meant(path) for path in wanted.paths], view.folder)
    jobs.check_room()
    options = IndexJobOptions(wanted.prune, wanted.retry_failed, tuple(wanted.include), tuple(wanted.exclude))
    record = jobs.add(paths, options, principal.name)
    prefix = request.scope.get("root_path", "")
    response.headers["location"] = f"{prefix}/v1/jobs/{record.job_id}"
    return job_answers.job(record, jobs.files_of(record), view, prefix)


@router.get(
    "/v1/jobs",
    operation_id="listJobs",
    summary="Jobs, the newest first",
    responses=error_responses(422, 503, meanings=_MEANINGS),
)
def list_jobs(
    page: Annotated[JobListQuery, Query()],
    request: Request,
    context: ContextDep,
    jobs: JobsDep,
    principal: _Reader,
) -> JobList:
    """Jobs that wait, run, or have ended; of the last ones, a hundred are kept."""
    view = view_of(context, principal)
    found = jobs.all(view.folder)
    if page.state is not None:
        found = [record for record in found if record.state in _STATES[page.state]]
    prefix = request.scope.get("root_path", "")
    shown = found[page.offset : page.offset + page.limit]
    return JobList(
        jobs=[job_answers.job(record, jobs.files_of(record), view, prefix) for record in shown],
        total=len(found),
    )


@router.get(
    "/v1/jobs/{job_id}",
    operation_id="getJob",
    summary="One job",
    responses=error_responses(404, 503, meanings=_MEANINGS),
)
def get_job(
    job_id: JobIdPath, request: Request, context: ContextDep, jobs: JobsDep, principal: _Reader
) -> Job:
    """How far a job is."""
    view = view_of(context, principal)
    record = jobs.find(job_id, view.folder)
    return job_answers.job(record, jobs.files_of(record), view, request.scope.get("root_path", ""))


@router.get(
    "/v1/jobs/{job_id}/events",
    operation_id="followJob",
    summary="A job's events as they happen",
    response_class=Response,
    responses=_EVENTS,
)
def follow_job(
    job_id: JobIdPath,
    request: Request,
    context: ContextDep,
    jobs: JobsDep,
    principal: _Reader,
    last_event_id: Annotated[
        str | None,
        Header(description="The id of the last event that the client has: it gets those after it."),
    ] = None,
) -> Response:
    """All events of a job so far, and then each as it happens, until the job has ended."""
    view = view_of(context, principal)
    record = jobs.find(job_id, view.folder)
    files = jobs.files_of(record)
    given = last_event_id or ""
    after = int(given) if given.isdecimal() and given.isascii() and len(given) < 16 else 0
    if record.has_ended and 0 < files.events_end() <= after:
        # Browsers do not ask again after this.
        return Response(status_code=204)
    state = request.app.state
    stream = event_stream(
        files,
        after,
        view,
        has_ended=lambda: jobs.find(job_id, None).has_ended,
        is_stopping=lambda: state.is_stopping,
    )
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(stream, media_type=MEDIA_TYPE, headers=headers)


@router.get(
    "/v1/jobs/{job_id}/log",
    operation_id="getJobLog",
    summary="What a job printed",
    response_class=PlainTextResponse,
    responses=error_responses(404, 503, meanings=_MEANINGS),
)
def get_job_log(
    job_id: JobIdPath,
    context: ContextDep,
    jobs: JobsDep,
    principal: Annotated[Principal, Depends(require("admin"))],
) -> Response:
    """What `reelfind index` printed, which may name any file. Of a long log the older lines are missing."""
    record = jobs.find(job_id, view_of(context, principal).folder)
    return PlainTextResponse(jobs.files_of(record).read_log(), headers={"cache-control": "no-store"})


@router.delete(
    "/v1/jobs/{job_id}",
    operation_id="cancelJob",
    summary="Cancel a job",
    status_code=202,
    responses=error_responses(404, 409, 503, meanings=_MEANINGS),
)
def cancel_job(
    job_id: JobIdPath,
    request: Request,
    context: ContextDep,
    jobs: JobsDep,
    principal: Annotated[Principal, Depends(require("index", action="job.cancel"))],
) -> Job:
    """End a job. One that runs saves and publishes what it has done, for which it has half a minute."""
    view = view_of(context, principal)
    record = jobs.cancel(job_id, view.folder)
    return job_answers.job(record, jobs.files_of(record), view, request.scope.get("root_path", ""))
