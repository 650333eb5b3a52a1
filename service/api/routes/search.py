"""POST /v1/search and /v1/videos/{video_id}/moments: the same ranking, of all videos and of one."""

import time
from collections.abc import Callable
from dataclasses import replace

from fastapi import APIRouter, Request, Response

from service.api.answers import search_body
from service.api.connections import client_of, presence_of
from service.api.context import ContextDep
from service.api.filters import to_filter
from service.api.openapi_errors import error_responses
from service.api.pool import Claim
from service.api.routes.videos import VideoIdPath
from service.api.schemas import MomentsRequest, SearchRequest, SearchResponse
from service.errors import NotUnderstoodError
from service.search.page_tokens import question_mark
from service.search.query import check_top_k, clean_text
from service.search.results import ALL_PARTS, SearchResult
from service.search.searcher import OpenSearch, Searcher, SearchOptions
from service.search.sorting import parse_sort
from service.search.texts import Modalities
from service.search.video_finder import video_with_id

router = APIRouter(tags=["search"])

# What the first stage of a search costs, in pairs that the matching head could match meanwhile.
_FIRST_STAGE_PAIRS = 50
# Of a search's share of the time until its deadline, the part that the matching head may take: the rest is
# for the other stages, and for what cannot be foreseen.
_MATCHING_PART = 0.5


@router.post(
    "/v1/search",
    operation_id="search",
    summary="Find moments and videos by describing them",
    response_model=SearchResponse,
    responses=error_responses(410, 413, 415, 422, 503),
)
async def search(request: SearchRequest, context: ContextDep, http_request: Request) -> Response:
    """The moments that fit the description best, with their frames; or videos with their best moments."""
    options = SearchOptions(
        group_by=request.group_by,
        moments_per_video=request.moments_per_video,
        where=None if request.filter is None else to_filter(request.filter),
    )

    def find(searcher: Searcher, text: str, top_k: int, asked: SearchOptions) -> OpenSearch:
        return searcher.open(text, top_k, asked)

    return await _answer(request, options, find, context, http_request)


@router.post(
    "/v1/videos/{video_id}/moments",
    operation_id="searchMoments",
    summary="Find moments of one video",
    tags=["videos"],
    response_model=SearchResponse,
    responses=error_responses(404, 410, 413, 415, 422, 503),
)
async def search_moments(
    video_id: VideoIdPath, request: MomentsRequest, context: ContextDep, http_request: Request
) -> Response:
    """The moments of a video that fit the description best, with their frames."""
    video_with_id(context.live.searcher.snapshot, video_id)

    def find(searcher: Searcher, text: str, top_k: int, asked: SearchOptions) -> OpenSearch:
        return searcher.open_video(video_id, text, top_k, asked)

    return await _answer(request, SearchOptions(group_by="moment"), find, context, http_request)


async def _answer(
    request: MomentsRequest,
    options: SearchOptions,
    find: Callable[[Searcher, str, int, SearchOptions], OpenSearch],
    context: ContextDep,
    http_request: Request,
) -> Response:
    """Check the request, wait for a turn, and search with `find`."""
    arrived = time.monotonic()
    settings = context.settings
    text = clean_text(request.query.text, settings.max_query_characters)
    top_k = settings.default_top_k if request.top_k is None else request.top_k
    check_top_k(top_k, settings.max_top_k)
    searcher = context.live.searcher
    page_token = request.page_token
    if page_token is not None:
        # What was excluded since the first page is not in the others.
        searcher = context.live.curated(context.pages.searcher_of(page_token, searcher, "/page_token"))
    deadline_seconds = settings.deadline_seconds(request.deadline_ms)
    client, presence = client_of(http_request.scope), presence_of(http_request.scope)
    options = replace(
        options,
        rerank=request.rerank,
        num_candidates=request.num_candidates,
        num_salient_frames=request.num_salient_frames,
        # Waiting for a thread counts too.
        deadline=arrived + deadline_seconds,
        explain=request.explain,
        min_probability=request.min_probability,
        min_score=None if request.threshold is None else request.threshold.score,
        min_similarity=None if request.threshold is None else request.threshold.similarity,
        sort=None if request.sort is None else parse_sort(request.sort),
        parts=ALL_PARTS if request.fields is None else frozenset(request.fields),
        modalities=Modalities(**request.modalities.model_dump()),
        max_pairs=settings.max_search_pairs,
        client=client,
        is_wanted=None if presence is None else presence.is_here,
    )
    searcher.check(options)
    pairs = min(searcher.most_pairs(options), settings.max_search_pairs)
    claim = Claim(client, _FIRST_STAGE_PAIRS + pairs, options.deadline, options.is_wanted)

    # A further page is of the same ranking, whatever of it is wanted, and in which time.
    same = request.model_dump(exclude={"page_token", "fields", "explain", "deadline_ms"})
    question = question_mark(http_request.url.path, same, options.where, options.visible)

    def ask(asked: Searcher, allowed: SearchOptions) -> OpenSearch:
        return find(asked, text, top_k, asked.check(allowed))

    def run(share: float) -> tuple[SearchResult, bytes]:
        allowed = replace(options, match_seconds=_MATCHING_PART * share * deadline_seconds)
        if page_token is None:
            result = context.live.search(
                searcher, lambda asked: context.pages.first(asked, question, allowed, ask)
            )
        else:
            result = context.pages.following(searcher, question, page_token, "/page_token", allowed, ask)
        return result, search_body(result, options.parts)

    try:
        result, body = await context.pool.run(run, claim)
    except NotUnderstoodError:
        context.metrics.observe_not_understood()
        raise
    context.metrics.observe_search(result)
    return Response(body, media_type="application/json")
