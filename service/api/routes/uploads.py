"""Uploading videos, whole or in parts, and the jobs that index them."""

from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Request, Response
from starlette.concurrency import run_in_threadpool

from service.api import job_answers
from service.api.context import Context, ContextDep
from service.api.job_answers import JobView
from service.api.job_schemas import PART_BODY, NewUploadRequest, Upload, UploadedVideo
from service.api.jobs_on import JobsDep, view_of
from service.api.openapi_errors import error_responses
from service.api.principal import Principal, ScopedRoute, require
from service.api.video_uploads import (
    PART_TYPE,
    PARTS_PATH,
    PATH,
    MultipartVideo,
    Writing,
    body_of,
    carries_video,
)
from service.errors import QueryError, UploadOffsetError
from service.jobs.queue import Jobs
from service.jobs.records import IndexJobOptions
from service.jobs.uploads import PartialFile, safe_name, upload_folder

router = APIRouter(tags=["jobs"], route_class=ScopedRoute)

UploadIdPath = Annotated[str, Path(description="Id of an upload, from `POST /v1/uploads`.")]
_Uploader = Annotated[Principal, Depends(require("index", action="video.upload"))]
_MEANINGS = {
    403: "The settings take no uploads, the scope is missing, or the Host or the Origin is not one of the "
    "service's.",
    404: "There is no such upload.",
    409: "The part does not begin where the one before ended, or another one is on its way.",
    413: "The video is too large.",
    415: "The body is declared as something else.",
    503: "As many jobs wait, or as many videos arrive, as may.",
}
_FILE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}
_OFFSETS: dict[str, Any] = {
    "Upload-Offset": {"description": "How many bytes have arrived.", "schema": {"type": "integer"}}
}


@router.post(
    PATH,
    operation_id="uploadVideo",
    summary="Upload a video",
    status_code=202,
    openapi_extra=_FILE_BODY,
    responses=error_responses(413, 415, 422, 503, 507, meanings=_MEANINGS),
)
async def upload_video(
    request: Request, response: Response, context: ContextDep, jobs: JobsDep, principal: _Uploader
) -> UploadedVideo:
    """Store a video in the upload folder, and index it: multipart/form-data with one part `file`.

    Its name may be changed, so that it is safe and no file is overwritten. For large ones and bad connections
    see `POST /v1/uploads`.
    """
    if not carries_video(request.scope):
        raise QueryError("A video is uploaded as multipart/form-data, with one part `file`.", "")
    view = await run_in_threadpool(view_of, context, principal)
    folder = await run_in_threadpool(_folder, context, view)
    await run_in_threadpool(jobs.check_room)
    reader = MultipartVideo(request.headers["content-type"])
    most = context.settings.max_upload_bytes
    declared = request.headers.get("content-length", "0")
    expected = min(most, int(declared) if declared.isdecimal() else 0)
    name, writing = "", None
    with context.arrivals.one():
        try:
            async for chunk in body_of(request):
                for data in reader.feed(chunk):
                    if writing is None:
                        name = safe_name(reader.name or "", "/file")
                        writing = Writing(await run_in_threadpool(PartialFile.begin, folder, most, expected))
                    await writing.add(data)
            reader.finish()
            if writing is None:
                raise QueryError("The video is empty.", "/file")
            await writing.flush()
            return await _finish(writing.part, name, request, response, jobs, view, principal.name)
        finally:
            if writing is not None:
                await run_in_threadpool(writing.part.discard)


@router.post(
    PARTS_PATH,
    operation_id="beginUpload",
    summary="Begin to upload a video in parts",
    status_code=201,
    responses=error_responses(413, 415, 422, 503, 507, meanings=_MEANINGS),
)
def begin_upload(
    wanted: NewUploadRequest,
    request: Request,
    response: Response,
    context: ContextDep,
    jobs: JobsDep,
    principal: _Uploader,
) -> Upload:
    """Say how large a video is; its bytes come with `PATCH`, in parts of any size, one after the other.

    A part that broke off is not lost: `HEAD` tells how much has arrived. An upload to which nothing is added
    for a day is removed.
    """
    settings, view = context.settings, view_of(context, principal)
    folder = _folder(context, view)
    name = safe_name(wanted.name, "/name")
    upload = jobs.uploads.create(name, wanted.bytes, folder, settings.max_upload_bytes)
    response.headers["location"] = f"{request.scope.get('root_path', '')}{PARTS_PATH}/{upload.upload_id}"
    return Upload(upload_id=upload.upload_id, name=name, bytes=upload.bytes, offset=0)


@router.head(f"{PARTS_PATH}/{{upload_id}}", include_in_schema=False)
@router.get(
    f"{PARTS_PATH}/{{upload_id}}",
    operation_id="getUpload",
    summary="How much of an upload has arrived",
    responses={200: {"headers": _OFFSETS}, **error_responses(404, 409, 503, meanings=_MEANINGS)},
)
def get_upload(
    upload_id: UploadIdPath,
    response: Response,
    context: ContextDep,
    jobs: JobsDep,
    principal: Annotated[Principal, Depends(require("index"))],
) -> Upload:
    """How much of an upload has arrived; the header `Upload-Offset` says so too, also with `HEAD`."""
    upload = jobs.uploads.find(upload_id, view_of(context, principal).folder)
    offset = jobs.uploads.arrived(upload)
    response.headers["upload-offset"] = str(offset)
    response.headers["upload-length"] = str(upload.bytes)
    response.headers["cache-control"] = "no-store"
    return Upload(upload_id=upload.upload_id, name=upload.name, bytes=upload.bytes, offset=offset)


@router.patch(
    f"{PARTS_PATH}/{{upload_id}}",
    operation_id="continueUpload",
    summary="Send the next part of an upload",
    response_model=UploadedVideo,
    status_code=202,
    openapi_extra=PART_BODY,
    responses={
        204: {"description": "The part has arrived, and more is to come.", "headers": _OFFSETS},
        **error_responses(404, 409, 413, 415, 422, 503, 507, meanings=_MEANINGS),
    },
)
async def continue_upload(
    upload_id: UploadIdPath,
    request: Request,
    response: Response,
    context: ContextDep,
    jobs: JobsDep,
    principal: _Uploader,
    upload_offset: Annotated[int, Header(ge=0, description="Where the part begins, in bytes.")],
) -> UploadedVideo | Response:
    """Add bytes. With the last ones the video gets its name, and a job indexes it: the answer is then that of
    `POST /v1/videos`.
    """
    if not carries_video(request.scope):
        raise QueryError(f"A part is sent with the header Content-Type: {PART_TYPE}.", "")
    view = await run_in_threadpool(view_of, context, principal)
    upload = await run_in_threadpool(jobs.uploads.find, upload_id, view.folder)
    with context.arrivals.one(), jobs.uploads.claim(upload) as part:
        if part.size != upload_offset:
            raise UploadOffsetError(
                f"{part.size:,} bytes have arrived, and the part begins at {upload_offset:,}. Go on at "
                f"Upload-Offset: {part.size}."
            )
        writing = Writing(part)
        try:
            async for chunk in body_of(request):
                await writing.add(chunk)
        finally:
            # Also of a part that breaks off, what has arrived counts.
            await writing.flush()
        if part.size < upload.bytes:
            return Response(status_code=204, headers={"upload-offset": str(part.size)})
        uploaded = await _finish(part, upload.name, request, response, jobs, view, principal.name)
        await run_in_threadpool(jobs.uploads.forget, upload)
        response.headers["upload-offset"] = str(upload.bytes)
        return uploaded


@router.delete(
    f"{PARTS_PATH}/{{upload_id}}",
    operation_id="dropUpload",
    summary="Give an upload up",
    status_code=204,
    response_class=Response,
    responses=error_responses(404, 409, 503, meanings=_MEANINGS),
)
def drop_upload(
    upload_id: UploadIdPath, context: ContextDep, jobs: JobsDep, principal: _Uploader
) -> Response:
    """Remove what has arrived."""
    upload = jobs.uploads.find(upload_id, view_of(context, principal).folder)
    with jobs.uploads.claim(upload) as part:
        part.discard()
        jobs.uploads.forget(upload)
    return Response(status_code=204)


def _folder(context: Context, view: JobView) -> FilePath:
    """Where what somebody uploads is stored. Raises as `upload_folder`."""
    return upload_folder(context.settings.upload_folder, context.media_folders.current(), view.folder)


async def _finish(
    part: PartialFile,
    name: str,
    request: Request,
    response: Response,
    jobs: Jobs,
    view: JobView,
    created_by: str,
) -> UploadedVideo:
    """Give a video its name, and let a job index it."""
    path, video_id = await run_in_threadpool(part.finish, name)
    record = await run_in_threadpool(jobs.add, [path], IndexJobOptions(), created_by)
    prefix = request.scope.get("root_path", "")
    response.headers["location"] = f"{prefix}/v1/jobs/{record.job_id}"
    job = await run_in_threadpool(job_answers.job, record, jobs.files_of(record), view, prefix)
    return UploadedVideo(path=job.paths[0], bytes=part.size, video_id=video_id, job=job)
