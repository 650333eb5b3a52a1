"""POST /v1/videos/{video_id}/answer."""

from fastapi import APIRouter, Request, Response

from service.api.answers import answer_body, as_told
from service.api.context import ContextDep
from service.api.openapi_errors import error_responses
from service.api.pool import Claim
from service.api.principal import ScopedRoute, SearchPrincipal
from service.api.routes.videos import VideoIdPath
from service.api.schemas import AnswerRequest, AnswerResponse
from service.api.searching import FIRST_STAGE_PAIRS, Asker
from service.api.time_budget import DESCRIBED
from service.errors import NotUnderstoodError, QueryError
from service.search.answering import AnswerOptions, answer_question, check_can_answer
from service.search.match_queue import MatchTerms
from service.search.query import check_num_salient_frames, clean_text
from service.search.results import AnswerResult
from service.search.video_finder import video_with_id

router = APIRouter(tags=["videos"], route_class=ScopedRoute)


@router.post(
    "/v1/videos/{video_id}/answer",
    operation_id="answerQuestion",
    summary="Answer a question about a video",
    response_model=AnswerResponse,
    responses=error_responses(
        404,
        409,
        413,
        415,
        422,
        503,
        meanings={
            409: "The bundle has no answer head, or the library stores no tokens.",
            503: "No snapshot is served, too many searches are waiting, the question cannot be answered in "
            "time, or what it needs of the library is damaged.",
        },
    ),
    openapi_extra=DESCRIBED,
)
async def answer(
    video_id: VideoIdPath,
    request: AnswerRequest,
    context: ContextDep,
    principal: SearchPrincipal,
    http_request: Request,
) -> Response:
    """The likeliest answers to a question about a video, or a span of it, and the frames they rest on."""
    asker = Asker.of(http_request, principal)
    settings = context.settings
    text = clean_text(request.question.text, settings.max_query_characters, "question")
    start, end = request.start_seconds, request.end_seconds
    if end is not None and end < start:
        raise QueryError(
            f"end_seconds {end:g} is before start_seconds {start:g}. Choose a later end.", "/end_seconds"
        )
    searcher = context.live.searcher
    num_frames = request.num_salient_frames or searcher.bundle.manifest.num_salient_frames
    check_num_salient_frames(num_frames, searcher.bundle.manifest.frames_per_segment)
    # The usual mistakes are answered without waiting for a thread.
    check_can_answer(searcher.bundle, searcher.snapshot)
    video_with_id(searcher.seen_by(principal.view).snapshot, video_id)
    deadline = asker.arrived + asker.deadline_seconds(request.deadline_ms, settings)
    options = AnswerOptions(
        start,
        end,
        request.top_k,
        request.num_salient_frames,
        MatchTerms(asker.client, deadline, is_wanted=asker.is_wanted),
    )

    def run(_share: float) -> tuple[AnswerResult, bytes]:
        result = context.live.search(
            searcher,
            lambda asked: answer_question(
                asked.bundle, asked.seen_by(principal.view).snapshot, video_id, text, options
            ),
        )
        return result, answer_body(as_told(result, principal))

    try:
        claim = Claim(asker.client, FIRST_STAGE_PAIRS + num_frames, deadline, asker.is_wanted)
        result, body = await context.pool.run(run, claim)
    except NotUnderstoodError:
        context.metrics.observe_not_understood()
        raise
    context.metrics.observe_answer(result)
    return Response(body, media_type="application/json")
