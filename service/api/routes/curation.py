"""What users say of videos (title, tags, note), and removing videos from the library."""

import os
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from indexer.library.annotations import Annotation, clean_note, clean_tags, clean_title
from indexer.library.curated import tags_of
from indexer.library.exclusions import NewExclusion
from indexer.library.records import VideoRecord
from model.runtime.errors import InputError
from service.api import answers, schemas
from service.api.context import ContextDep
from service.api.media_removal import DeletableMedia
from service.api.openapi_errors import error_responses
from service.api.principal import Principal, ScopedRoute, SearchPrincipal, require
from service.api.routes.videos import VideoIdPath
from service.api.seen import seen
from service.api.writing import WRITES
from service.errors import PreconditionFailedError, QueryError, WritesOffError
from service.search.video_finder import video_with_id
from service.search.views import PathNames

router = APIRouter(tags=["videos"], route_class=ScopedRoute)

_WRITES_OFF = {
    403: "Clients may not change the library, or the Host or the Origin is not one of the service's."
}


@router.get(
    "/v1/tags", operation_id="listTags", summary="The tags of all videos", responses=error_responses(422, 503)
)
def list_tags(
    page: Annotated[schemas.TagListQuery, Query()],
    context: ContextDep,
    principal: SearchPrincipal,
) -> schemas.TagList:
    """The tags that users gave, the most frequent first. Case does not count."""
    counts = tags_of(seen(context, principal).snapshot)
    return schemas.TagList(
        tags=[schemas.TagCount(tag=tag, num_videos=number) for tag, number in counts[: page.limit]],
        total=len(counts),
    )


@router.patch(
    "/v1/videos/{video_id}",
    operation_id="annotateVideo",
    summary="Give a video a title, tags and a note",
    response_model=schemas.Video,
    responses=error_responses(404, 412, 413, 415, 422, 503, meanings=_WRITES_OFF),
    dependencies=[WRITES],
)
def annotate_video(
    video_id: VideoIdPath,
    change: schemas.AnnotationChange,
    request: Request,
    context: ContextDep,
    principal: Annotated[Principal, Depends(require("index", action="video.annotate"))],
) -> Response:
    """Change what users say of a video; searches and lists show and find it at once.

    With `If-Match` and the ETag of `GET /v1/videos/{video_id}`, it is only changed if nobody else has changed
    it since.
    """
    searcher = seen(context, principal)
    video, names = video_with_id(searcher.snapshot, video_id), searcher.names

    def edit(before: Annotation) -> Annotation:
        _check_match(request.headers.get("if-match"), replace(video, annotation=before), names)
        return _changed(before, change)

    after = context.live.curation.annotate(video_id, edit)
    return answers.changed_video(replace(video, annotation=after), names)


@router.delete(
    "/v1/videos/{video_id}",
    operation_id="removeVideo",
    summary="Remove a video from the library",
    status_code=204,
    response_class=Response,
    responses=error_responses(
        404, 409, 410, 422, 503, meanings=_WRITES_OFF | {409: "The file is not the one that was indexed."}
    ),
    dependencies=[WRITES],
)
def remove_video(
    video_id: VideoIdPath,
    how: Annotated[schemas.RemovalQuery, Query()],
    context: ContextDep,
    principal: Annotated[Principal, Depends(require("index", action="video.remove"))],
) -> Response:
    """Remove a video: it is in no answer any more. The next `reelfind index` removes what is stored of it.

    Its file stays, unless `media` is true, and is not indexed again as long as it exists; `reelfind library
    include` undoes that.
    """
    video = video_with_id(seen(context, principal).snapshot, video_id)
    exclusions = _exclusions(video, principal)
    if not how.media:
        context.live.curation.exclude(exclusions)
        return Response(status_code=204)
    if not context.settings.allow_delete_media:
        raise WritesOffError(
            "This service does not let clients delete files. Leave `media` out, or start it with "
            "`reelfind serve --writes --allow-delete-media`."
        )
    with DeletableMedia(video, context.media_folders.current(), principal.folder) as media:
        context.live.curation.exclude(exclusions)
        media.delete()
    return Response(status_code=204)


def _changed(before: Annotation, change: schemas.AnnotationChange) -> Annotation:
    """An annotation with the fields that a request has.

    Raises:
        QueryError: one of them is out of bounds.
    """
    try:
        after = before
        if "title" in change.model_fields_set:
            after = replace(after, title=clean_title(change.title))
        if "tags" in change.model_fields_set:
            after = replace(after, tags=clean_tags(change.tags))
        if "note" in change.model_fields_set:
            after = replace(after, note=clean_note(change.note))
        return after
    except InputError as error:
        raise QueryError(f"{error}.", f"/{error.field}") from None


def _exclusions(video: VideoRecord, principal: Principal) -> list[NewExclusion]:
    """What removes a video: its content; for who is limited to a folder, its places there alone."""
    if principal.folder is None:
        return [NewExclusion.of_video(video, "removed")]
    return [NewExclusion("removed", path=os.fsencode(file.path)) for file in video.files]


def _check_match(condition: str | None, video: VideoRecord, names: PathNames) -> None:
    """Check the header `If-Match` (RFC 9110, section 13.1.1).

    Raises:
        PreconditionFailedError: it names other states than the video's.
    """
    if condition is None or condition.strip() == "*":
        return
    if not {part.strip() for part in condition.split(",")}.intersection(answers.video_etags(video, names)):
        raise PreconditionFailedError(
            f"Video {video.video_id} has changed since it was read. Get it again, and send its new ETag."
        )
