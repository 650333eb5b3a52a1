"""Thumbnails of stored frames."""

import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from starlette.datastructures import Headers

from model.runtime.messages import shorten
from service.api.context import ContextDep
from service.api.media import is_fresh
from service.api.openapi_errors import error_responses
from service.api.principal import Principal, ScopedRoute, require
from service.api.seen import read_seen
from service.errors import NotFoundError

router = APIRouter(tags=["videos"], route_class=ScopedRoute)

FrameIdPath = Annotated[str, Path(description="Id of a stored frame, from a hit.")]
SnapshotQuery = Annotated[
    int | None,
    Query(description="Number of the snapshot that named the frame: lets clients cache the thumbnail."),
]
_IMAGE = {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}}
IMAGE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The thumbnail, at most 320 pixels on its longer side.", **_IMAGE},
    304: {"description": "The client's copy is up to date."},
    **error_responses(404, 422, 503),
}


@router.head("/v1/frames/{frame_id}.jpg", include_in_schema=False)
@router.get(
    "/v1/frames/{frame_id}.jpg",
    operation_id="getFrame",
    summary="Thumbnail of a stored frame",
    response_class=Response,
    responses=IMAGE_RESPONSES,
)
def get_frame(
    frame_id: FrameIdPath,
    request: Request,
    context: ContextDep,
    principal: Annotated[Principal, Depends(require("search", signable=True))],
    snapshot: SnapshotQuery = None,
) -> Response:
    """The thumbnail of a stored frame as a JPEG image.

    When a video is replaced and indexed again, its frames keep their ids. So clients may cache an address for
    ever only if it names the served snapshot (`?snapshot=3`); otherwise they must ask again with the ETag.
    """
    served, thumbnail = read_seen(context, principal, lambda s: (s.snapshot, s.snapshot.thumbnail(frame_id)))
    if thumbnail is None:
        raise NotFoundError(
            f"No stored frame has the id {shorten(frame_id)}. The hits of a search list the ids."
        )
    return image_response(thumbnail, request.headers, is_lasting=snapshot == served.number)


def image_response(thumbnail: bytes, request: Headers, *, is_lasting: bool) -> Response:
    """A thumbnail with its ETag, or 304 where the client's copy is up to date.

    `is_lasting` tells whether the address names this thumbnail for ever.
    """
    etag = f'"{hashlib.sha256(thumbnail).hexdigest()[:32]}"'
    caching = "max-age=31536000, immutable" if is_lasting else "no-cache"
    headers = {"etag": etag, "cache-control": f"private, {caching}"}
    if is_fresh(request, etag):
        return Response(status_code=304, headers=headers)
    return Response(thumbnail, media_type="image/jpeg", headers=headers)
