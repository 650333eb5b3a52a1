"""Thumbnails of stored frames."""

import hashlib
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from indexer.library.records import parse_frame_id
from model.runtime.messages import shorten
from service.api.context import ContextDep
from service.api.media import is_fresh
from service.api.openapi_errors import error_responses
from service.errors import NotFoundError

router = APIRouter(tags=["videos"])

FrameIdPath = Annotated[str, Path(description="From the frames of a hit.")]
SnapshotQuery = Annotated[
    int | None, Query(description="The snapshot that named the frame: lets the client keep the picture.")
]
_IMAGE = {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}}


@router.head("/v1/frames/{frame_id}.jpg", include_in_schema=False)
@router.get(
    "/v1/frames/{frame_id}.jpg",
    operation_id="getFrame",
    summary="A stored frame's picture",
    response_class=Response,
    responses={
        200: {"description": "The picture, at most 320 pixels on its longer side.", **_IMAGE},
        304: {"description": "The client's copy is still right."},
        **error_responses(404, 422, 503),
    },
)
def get_frame(
    frame_id: FrameIdPath, request: Request, context: ContextDep, snapshot: SnapshotQuery = None
) -> Response:
    """A JPEG image.

    A frame's id stays when its video is replaced and indexed again, so only an address that names the
    snapshot served (`?snapshot=3`) may be kept for ever; without it the client asks again with the ETag.
    """
    served = context.live.searcher.snapshot
    picture = served.thumbnail(frame_id) if parse_frame_id(frame_id) else None
    if picture is None:
        raise NotFoundError(
            f"No stored frame has the id {shorten(frame_id)}. The hits of a search list the ids."
        )
    etag = f'"{hashlib.sha256(picture).hexdigest()[:32]}"'
    kept = "max-age=31536000, immutable" if snapshot == served.number else "no-cache"
    headers = {"etag": etag, "cache-control": f"private, {kept}"}
    if is_fresh(request.headers, etag):
        return Response(status_code=304, headers=headers)
    return Response(picture, media_type="image/jpeg", headers=headers)
