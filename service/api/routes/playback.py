"""How a video can be played: as it is, as a stream that is made for it, and clips of it."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from indexer.library.records import VideoRecord, displayable
from service.api import answers
from service.api.connections import client_of
from service.api.context import Context, ContextDep
from service.api.file_response import OpenFileResponse, answer_file
from service.api.media import MediaFile, content_disposition, open_media
from service.api.openapi_errors import error_responses
from service.api.presence import while_here
from service.api.principal import Principal, ScopedRoute, SearchPrincipal, require
from service.api.problems import told
from service.api.routes.videos import VideoIdPath
from service.api.schemas import ClipQuery, StreamQuery, VideoDetails
from service.api.seen import seen
from service.api.stream_response import StreamResponse
from service.errors import (
    MediaChangedError,
    MediaGoneError,
    MediaNotAllowedError,
    MediaUnreadableError,
    NoEncodersError,
    OverloadedError,
    QueryError,
)
from service.playback.cache import StoredFile
from service.playback.making import Source
from service.playback.naming import clip_name
from service.playback.playable import why_not_playable
from service.search.video_finder import video_with_id

router = APIRouter(tags=["videos"], route_class=ScopedRoute)

#: Why it may not be known whether a file can be played.
_WHY_NOT_KNOWN = (
    MediaNotAllowedError,
    MediaChangedError,
    MediaGoneError,
    NoEncodersError,
    OverloadedError,
)
_MP4: dict[str, Any] = {"content": {"video/mp4": {"schema": {"type": "string", "format": "binary"}}}}
_MEANINGS = {
    409: "The file is not the one that was indexed, or cannot be decoded.",
    503: "No snapshot is served, or as many streams and clips are being made as may be.",
}
_STREAM_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The stream.", **_MP4},
    **error_responses(404, 409, 410, 422, 503, meanings=_MEANINGS),
}
_CLIP_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The clip.", **_MP4},
    206: {"description": "The requested range of it.", **_MP4},
    304: {"description": "The client's copy is up to date."},
    **error_responses(404, 409, 410, 416, 422, 503, meanings=_MEANINGS),
}


@router.get(
    "/v1/videos/{video_id}",
    operation_id="getVideo",
    summary="One video",
    response_model=VideoDetails,
    responses={304: {"description": "The client's copy is up to date."}, **error_responses(404, 503)},
)
async def get_video(
    video_id: VideoIdPath,
    request: Request,
    context: ContextDep,
    principal: SearchPrincipal,
) -> Response:
    """What the library knows about one video, and how it can be played. The ETag is for `If-Match` of a
    later `PATCH`.
    """
    searcher = seen(context, principal)
    video = video_with_id(searcher.snapshot, video_id)
    playable, why = await while_here(request.receive, _is_playable(video, context, principal, request))
    prefix = request.scope.get("root_path", "")
    url = f"{prefix}/v1/videos/{video.video_id}"
    return answers.video_response(video, searcher.names, playable, why, url, request.headers)


async def _is_playable(
    video: VideoRecord, context: Context, principal: Principal, request: Request
) -> tuple[bool | None, str | None]:
    """Whether browsers play a video's file as it is, None where that is not known; and why not."""
    try:
        async with _opened(video, context, principal) as media:
            found = await context.maker.describe(_source(video, media))
    except MediaUnreadableError as error:
        return False, str(error)
    except _WHY_NOT_KNOWN as error:
        return None, told(error, request.scope) or str(error)
    why = why_not_playable(found, media.path.suffix)
    return why is None, why


@router.get(
    "/v1/videos/{video_id}/stream",
    operation_id="getStream",
    summary="A video as a stream that every browser plays",
    response_class=Response,
    responses=_STREAM_RESPONSES,
)
async def get_stream(
    video_id: VideoIdPath,
    query: Annotated[StreamQuery, Query()],
    request: Request,
    context: ContextDep,
    principal: Annotated[Principal, Depends(require("media", signable=True))],
) -> Response:
    """A preview of the video from a time on: fragmented MP4 with H.264 and AAC, made while it is read.

    Time 0 of the stream is `start`. The picture is upright, at most some 720 rows high (a setting), and of
    standard dynamic range. A stream that comes to its end is stored, and found when it is asked for again.
    """
    video = video_with_id(seen(context, principal).snapshot, video_id)
    start = round(query.start, 3)
    _check_start(start, video)
    viewer = None if query.viewer is None else (client_of(request.scope), query.viewer)
    async with _opened(video, context, principal) as media:
        stream = await while_here(request.receive, context.maker.stream(_source(video, media), start, viewer))
    headers = {"cache-control": "no-store", "accept-ranges": "none"}
    if isinstance(stream, StoredFile):
        return OpenFileResponse(stream.file, 0, stream.size, 200, headers, stream.media_type)
    return StreamResponse(stream, video.video_id, headers)


@router.get(
    "/v1/videos/{video_id}/clip",
    operation_id="getClip",
    summary="A clip of a video",
    response_class=Response,
    responses=_CLIP_RESPONSES,
)
async def get_clip(
    video_id: VideoIdPath,
    query: Annotated[ClipQuery, Query()],
    request: Request,
    context: ContextDep,
    principal: Annotated[Principal, Depends(require("media", signable=True))],
) -> Response:
    """The part of the video from `start` to `end`, with its sound, as an MP4 file to save.

    It begins with the frame that is on display at `start`, and ends with the last one that appears before
    `end`. Where that frame is a key frame which appeared at most 0.1 s before, and the part can be taken out
    as it is, in a codec that browsers play, it is copied; else it is encoded anew.
    """
    video = video_with_id(seen(context, principal).snapshot, video_id)
    start, end = round(query.start, 3), round(query.end, 3)
    _check_start(start, video)
    if end <= start:
        raise QueryError(f"end {end:g} is not after start {start:g}. Choose a later end.", "?end")
    most = context.settings.max_clip_seconds
    if end - start > most:
        raise QueryError(
            f"The clip would be {end - start:g} s long; the limit is {most:g} s. Choose an earlier end, or "
            "raise REELFIND_MAX_CLIP_SECONDS.",
            "?end",
        )
    if 0 < video.duration_seconds < end:
        end = round(video.duration_seconds, 3)
    async with _opened(video, context, principal) as media:
        clip = await while_here(request.receive, context.maker.clip(_source(video, media), start, end))
    name = displayable(media.path).rpartition("/")[2]
    tag = f"{media.etag} {start} {end} {context.settings.clip_height}"
    return answer_file(
        clip.file,
        clip.size,
        request.headers,
        etag=f'"{hashlib.sha256(tag.encode()).hexdigest()[:32]}"',
        modified=media.modified,
        name=content_disposition(clip_name(name, start, end), "attachment"),
        media_type=clip.media_type,
    )


def _check_start(start: float, video: VideoRecord) -> None:
    if 0 < video.duration_seconds <= start:
        raise QueryError(
            f"start {start:g} is not in the video, which is {video.duration_seconds:g} s long. Choose an "
            "earlier start.",
            "?start",
        )


@asynccontextmanager
async def _opened(video: VideoRecord, context: Context, principal: Principal) -> AsyncIterator[MediaFile]:
    """The open file of a video, until a process has started that reads it. Raises as `open_media`."""
    media = await run_in_threadpool(
        lambda: open_media(video, context.media_folders.current(), principal.folder)
    )
    try:
        yield media
    finally:
        media.file.close()


def _source(video: VideoRecord, media: MediaFile) -> Source:
    status = media.status
    return Source(
        media.file.fileno(),
        (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns),
        video.sha256,
        video.duration_seconds,
    )
