"""POST /v1/search and /v1/videos/{video_id}/moments: the same ranking, of all videos and of one.

Each takes JSON, or multipart/form-data with a picture (`UploadRoute`).
"""

from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from pydantic_core import from_json

from service.api.context import Context, ContextDep
from service.api.openapi_errors import error_responses
from service.api.principal import Principal, ScopedRoute, SearchPrincipal
from service.api.query_reading import QueryReader
from service.api.routes.videos import VideoIdPath
from service.api.schemas import MomentsRequest, SearchRequest, SearchResponse
from service.api.searching import Asker, answer_search, checked_search
from service.api.time_budget import DESCRIBED
from service.api.uploads import MEDIA_TYPE, UploadRoute, read_upload
from service.search.picture_encoder import check_image_query
from service.search.video_finder import video_with_id

router = APIRouter(tags=["search"], route_class=ScopedRoute)
uploads = APIRouter(route_class=UploadRoute, include_in_schema=False)

AnyRequest = TypeVar("AnyRequest", bound=MomentsRequest)
_PICTURE_ALONE = {"query": {"image": "upload"}}
_MEANINGS = {
    409: "The query is a picture, which the bundle cannot read, or the settings have turned that off.",
    415: "The body is declared neither as JSON nor, with a picture, as multipart/form-data.",
}


def _with_picture(model: str) -> dict[str, Any]:
    """What OpenAPI says of a body with a picture, beside the JSON of a model, and of the time budget."""
    parts = {
        "image": {
            "type": "string",
            "format": "binary",
            "description": "A file: JPEG, PNG, WebP, GIF, AVIF or BMP.",
        },
        "request": {
            "allOf": [{"$ref": f"#/components/schemas/{model}"}],
            "description": "The request as JSON, whose query names the picture; left out: the picture alone.",
        },
    }
    schema = {"type": "object", "required": ["image"], "properties": parts}
    content = {"schema": schema, "encoding": {"request": {"contentType": "application/json"}}}
    return {**DESCRIBED, "requestBody": {"content": {MEDIA_TYPE: content}}}


@uploads.post("/v1/search")
async def search_with_picture(
    context: ContextDep, principal: SearchPrincipal, http_request: Request
) -> Response:
    """As `search`, with a picture."""
    return await _answer_upload(SearchRequest, context, principal, http_request)


@uploads.post("/v1/videos/{video_id}/moments")
async def search_moments_with_picture(
    video_id: VideoIdPath, context: ContextDep, principal: SearchPrincipal, http_request: Request
) -> Response:
    """As `search_moments`, with a picture."""
    return await _answer_upload(MomentsRequest, context, principal, http_request, video_id)


@router.post(
    "/v1/search",
    operation_id="search",
    summary="Find moments and videos by describing or showing them",
    response_model=SearchResponse,
    responses=error_responses(409, 410, 413, 415, 422, 503, meanings=_MEANINGS),
    openapi_extra=_with_picture("SearchRequest"),
)
async def search(
    request: SearchRequest, context: ContextDep, principal: SearchPrincipal, http_request: Request
) -> Response:
    """The moments that fit the query best, with their frames; or videos with their best moments."""
    return await _answer(request, None, Asker.of(http_request, principal), context)


@router.post(
    "/v1/videos/{video_id}/moments",
    operation_id="searchMoments",
    summary="Find moments of one video",
    tags=["videos"],
    response_model=SearchResponse,
    responses=error_responses(404, 409, 410, 413, 415, 422, 503, meanings=_MEANINGS),
    openapi_extra=_with_picture("MomentsRequest"),
)
async def search_moments(
    video_id: VideoIdPath,
    request: MomentsRequest,
    context: ContextDep,
    principal: SearchPrincipal,
    http_request: Request,
) -> Response:
    """The moments of a video that fit the query best, with their frames."""
    return await _answer(request, None, Asker.of(http_request, principal), context, video_id)


async def _answer_upload(
    model: type[AnyRequest],
    context: Context,
    principal: Principal,
    http_request: Request,
    video_id: str | None = None,
) -> Response:
    """Read a request with a picture, and answer it."""
    asker, settings, searcher = Asker.of(http_request, principal), context.settings, context.live.searcher
    # A picture that cannot be used is not received.
    check_image_query(searcher.bundle, is_allowed=searcher.images_allowed)
    with context.uploads.hold() as held:
        upload = await read_upload(http_request, held, settings.max_image_bytes, settings.max_body_bytes)
        request = model.model_validate(_PICTURE_ALONE)
        if upload.request is not None:
            request = _parsed(model, upload.request)
        return await _answer(request, upload.image, asker, context, video_id)


def _parsed(model: type[AnyRequest], data: bytes) -> AnyRequest:
    """The request that the part `request` holds.

    Raises:
        RequestValidationError: it is not JSON, or no such request.
    """
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        issues = [{**issue, "loc": ("body", *issue["loc"])} for issue in error.errors()]
        is_json = all(issue["type"] != "json_invalid" for issue in issues)
        raise RequestValidationError(issues, body=from_json(data) if is_json else None) from error


async def _answer(
    request: MomentsRequest, image: bytes | None, asker: Asker, context: Context, video_id: str | None = None
) -> Response:
    """Check a request, wait for a turn, and search."""
    searcher, settings = context.live.searcher, context.settings
    if video_id is not None:
        video_with_id(searcher.seen_by(asker.principal.view).snapshot, video_id)
    reader = QueryReader(settings.max_query_characters, settings.max_image_pixels, image)
    query = reader.read(request.query)
    search = checked_search(request, query, asker, context, searcher, video_id)
    body = await answer_search(search, context)
    return Response(body, media_type="application/json")
