"""The library's videos and their files."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from indexer.library.records import displayable
from service.api import answers
from service.api.context import Context, ContextDep
from service.api.file_response import answer_file
from service.api.filters import to_filter
from service.api.media import content_disposition, media_type, open_media
from service.api.openapi_errors import error_responses
from service.api.principal import Principal, ScopedRoute, SearchPrincipal, require
from service.api.schemas import VideoList, VideoListQuery, VideoListRequest
from service.api.seen import seen
from service.errors import QueryError
from service.search import conditions
from service.search.filters import Contains, Filter, In, Or, joined
from service.search.page_tokens import PageToken, question_mark, read_token, write_token
from service.search.sorting import parse_sort
from service.search.video_finder import video_with_id

router = APIRouter(tags=["videos"], route_class=ScopedRoute)

VideoIdPath = Annotated[
    str, Path(description="Id of a video: 32 hex digits, from a search or `GET /v1/videos`.")
]
_MEDIA: dict[str, Any] = {"content": {"video/*": {"schema": {"type": "string", "format": "binary"}}}}
_MEDIA_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The whole file.", **_MEDIA},
    206: {"description": "The requested range.", **_MEDIA},
    304: {"description": "The client's copy is up to date."},
    **error_responses(404, 409, 410, 416, 503, meanings={409: "The file is not the one that was indexed."}),
}


@router.get(
    "/v1/videos",
    operation_id="listVideos",
    summary="The library's videos",
    responses=error_responses(410, 422, 503),
)
def list_videos(
    page: Annotated[VideoListQuery, Query()],
    context: ContextDep,
    principal: SearchPrincipal,
) -> VideoList:
    """The videos, with the outcome of indexing each."""
    where = joined(
        None if page.verdict is None else In("verdict", (page.verdict,)),
        None if page.folder is None else conditions.under("path", page.folder, ""),
        None if page.text is None else Or((Contains("title", page.text), Contains("path", page.text))),
    )
    return _page_of(where, page, context, principal)


@router.post(
    "/v1/videos/list",
    operation_id="filterVideos",
    summary="The videos that a filter leaves",
    responses=error_responses(410, 413, 415, 422, 503),
)
def filter_videos(page: VideoListRequest, context: ContextDep, principal: SearchPrincipal) -> VideoList:
    """The videos that a filter leaves, in any order."""
    return _page_of(None if page.filter is None else to_filter(page.filter), page, context, principal)


def _page_of(
    where: Filter | None, page: VideoListQuery | VideoListRequest, context: Context, principal: Principal
) -> VideoList:
    """A page of the videos that a filter leaves."""
    sort = None if page.sort is None else parse_sort(page.sort)
    question = question_mark("videos", where, sort, principal.view)
    served, offset = context.live.searcher, page.offset
    if page.page_token is not None:
        if offset:
            raise QueryError(
                f"offset is {offset}, and page_token says where the page starts. Leave one of them out.",
                "/offset",
            )
        served = context.pages.searcher_of(page.page_token, served, "/page_token")
        token = read_token(page.page_token, served.token_key, question, "/page_token")
        offset = token.offset
    searcher = served.seen_by(principal.view)
    # The pages of a list have its order, without what was excluded since the first one.
    snapshot = context.live.curated(served).seen_by(principal.view).snapshot
    rows = searcher.selections.ordered(sort, where)
    following = offset + page.limit
    shown = rows[offset:following]
    next_token = None
    if following < len(rows):
        place = PageToken(context.pages.hold(served), question, 0, following)
        next_token = write_token(place, served.token_key)
    records = snapshot.records(shown[snapshot.catalog.visible[shown]])
    return VideoList(
        videos=[answers.video(record, searcher.names) for record in records],
        total=int(snapshot.catalog.visible[rows].sum()),
        hours=round(searcher.selections.hours(rows), 4),
        snapshot=snapshot.number,
        next_page_token=next_token,
    )


@router.head("/v1/videos/{video_id}/media", include_in_schema=False)
@router.get(
    "/v1/videos/{video_id}/media",
    operation_id="getMedia",
    summary="A video's file",
    response_class=Response,
    responses=_MEDIA_RESPONSES,
)
def get_media(
    video_id: VideoIdPath,
    request: Request,
    context: ContextDep,
    principal: Annotated[Principal, Depends(require("media", signable=True))],
) -> Response:
    """The file itself, or one byte range of it."""
    video = video_with_id(seen(context, principal).snapshot, video_id)
    media = open_media(video, context.media_folders.current(), principal.folder)
    return answer_file(
        media.file,
        media.size,
        request.headers,
        etag=media.etag,
        modified=media.modified,
        name=content_disposition(displayable(media.path).rpartition("/")[2]),
        media_type=media_type(media.path),
    )
