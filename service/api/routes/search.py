"""POST /v1/search."""

import time

from fastapi import APIRouter, Response

from service.api.answers import search_body
from service.api.context import ContextDep
from service.api.openapi_errors import error_responses
from service.api.schemas import SearchRequest, SearchResponse
from service.errors import NotUnderstoodError
from service.search.query import check_top_k, clean_text
from service.search.results import SearchResult
from service.search.searcher import SearchOptions

router = APIRouter(tags=["search"])


@router.post(
    "/v1/search",
    operation_id="search",
    summary="Find videos by describing them",
    response_model=SearchResponse,
    responses=error_responses(413, 415, 422, 503),
)
async def search(request: SearchRequest, context: ContextDep) -> Response:
    """The videos that fit the description best, each with its best segment and that segment's frames."""
    started = time.monotonic()
    settings = context.settings
    text = clean_text(request.query.text, settings.max_query_characters)
    top_k = settings.default_top_k if request.top_k is None else request.top_k
    check_top_k(top_k, settings.max_top_k)
    searcher = context.live.searcher
    deadline_ms = settings.deadline_ms if request.deadline_ms is None else request.deadline_ms
    options = SearchOptions(
        rerank=request.rerank,
        num_candidates=request.num_candidates,
        num_salient_frames=request.num_salient_frames,
        # Waiting for a thread counts too, so that an overloaded server skips re-ranking.
        deadline=started + deadline_ms / 1000,
        explain=request.explain,
    )
    searcher.check(options)

    def run() -> tuple[SearchResult, bytes]:
        result = context.live.search(searcher, lambda asked: asked.search(text, top_k, options))
        return result, search_body(result)

    try:
        result, body = await context.pool.run(run)
    except NotUnderstoodError:
        context.metrics.observe_not_understood()
        raise
    context.metrics.observe_search(result)
    return Response(body, media_type="application/json")
