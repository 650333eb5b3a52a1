"""The library's videos and their files."""

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Query, Request, Response
from fastapi.responses import FileResponse

from indexer.library.records import VideoRecord
from indexer.library.snapshot import Snapshot
from model.runtime.messages import shorten
from service.api import answers
from service.api.context import ContextDep
from service.api.media import RangeError, is_fresh, locate, media_type, wants_range
from service.api.openapi_errors import error_responses
from service.api.schemas import Video, VideoList, VideoListQuery
from service.errors import NotFoundError

router = APIRouter(tags=["videos"])

VideoIdPath = Annotated[
    str, Path(description="Id of a video: 16 hex digits, from a search or `GET /v1/videos`.")
]
_MEDIA: dict[str, Any] = {"content": {"video/*": {"schema": {"type": "string", "format": "binary"}}}}
_MEDIA_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The whole file.", **_MEDIA},
    206: {"description": "The requested range.", **_MEDIA},
    304: {"description": "The client's copy is up to date."},
    **error_responses(404, 410, 416, 503),
}


@router.get(
    "/v1/videos",
    operation_id="listVideos",
    summary="The library's videos",
    responses=error_responses(422, 503),
)
def list_videos(page: Annotated[VideoListQuery, Query()], context: ContextDep) -> VideoList:
    """The videos in the library's order, with the outcome of indexing each."""
    snapshot = context.live.searcher.snapshot
    records = snapshot.videos(page.offset, page.limit, page.verdict)
    return VideoList(
        videos=[answers.video(record) for record in records], total=snapshot.count_videos(page.verdict)
    )


@router.get(
    "/v1/videos/{video_id}",
    operation_id="getVideo",
    summary="One video",
    responses=error_responses(404, 503),
)
def get_video(video_id: VideoIdPath, context: ContextDep) -> Video:
    """What the library knows about one video."""
    return answers.video(_find(context.live.searcher.snapshot, video_id))


@router.head("/v1/videos/{video_id}/media", include_in_schema=False)
@router.get(
    "/v1/videos/{video_id}/media",
    operation_id="getMedia",
    summary="A video's file",
    response_class=FileResponse,
    responses=_MEDIA_RESPONSES,
)
def get_media(video_id: VideoIdPath, request: Request, context: ContextDep) -> Response:
    """The file itself, or one byte range of it."""
    snapshot = context.live.searcher.snapshot
    video = _find(snapshot, video_id)
    path, status = locate(video, snapshot.media_roots)
    response = FileResponse(
        path,
        media_type=media_type(path),
        filename=video.path.rpartition("/")[2],
        content_disposition_type="inline",
        stat_result=status,
        headers={"cache-control": "private, no-cache"},
    )
    etag, modified = response.headers["etag"], response.headers["last-modified"]
    if is_fresh(request.headers, etag, modified):
        return Response(
            status_code=304,
            headers={name: response.headers[name] for name in ("etag", "last-modified", "cache-control")},
        )
    try:
        ranged = wants_range(request.headers, status.st_size, etag, modified)
    except RangeError as error:
        raise HTTPException(
            416,
            f"The file has {error.size:,} bytes; the range {shorten(request.headers['range'])} has none of "
            f"them. Ask for bytes 0 to {max(0, error.size - 1)}.",
            {"content-range": f"bytes */{error.size}"},
        ) from None
    if not ranged:  # or FileResponse would answer an ignored header with 400, or with several parts
        headers = request.scope["headers"]
        request.scope["headers"] = [(name, value) for name, value in headers if name != b"range"]
    return response


def _find(snapshot: Snapshot, video_id: str) -> VideoRecord:
    video = snapshot.video(video_id) if len(video_id) == 16 and video_id.isalnum() else None
    if video is None:
        raise NotFoundError(
            f"No video has the id {shorten(video_id)}. Ids are 16 hex digits; GET /v1/videos lists them."
        )
    return video
