"""POST /v1/search/batch: many searches in one request, whose texts are encoded together."""

import logging
import time
from dataclasses import replace

from fastapi import APIRouter, Request, Response
from starlette.types import Scope

from model.runtime.errors import ReelfindError
from service.api.body_limits import BATCH_PATH
from service.api.context import Context, ContextDep
from service.api.openapi_errors import error_responses
from service.api.pool import Claim
from service.api.principal import ScopedRoute, SearchPrincipal
from service.api.problems import internal_problem, new_instance, problem_of
from service.api.query_reading import QueryReader
from service.api.schemas import BatchRequest, BatchResponse, Problem, SearchRequest
from service.api.searching import (
    FIRST_STAGE_PAIRS,
    Asker,
    CheckedSearch,
    answer_search,
    checked_search,
)
from service.api.time_budget import DESCRIBED
from service.errors import OverloadedError, QueryError
from service.search.encoded_query import EncodedTexts, encode_together
from service.search.queries import texts_of
from service.search.searcher import Searcher
from service.search.shared_calls import CallTerms

logger = logging.getLogger("reelfind")
router = APIRouter(tags=["search"], route_class=ScopedRoute)

# Hits of all searches of a batch: as many as those of so many searches with the largest `top_k`.
_MOST_FULL_SEARCHES = 10


@router.post(
    BATCH_PATH,
    operation_id="searchBatch",
    summary="Many searches at once",
    response_model=BatchResponse,
    responses=error_responses(413, 415, 422, 503),
    openapi_extra=DESCRIBED,
)
async def search_batch(
    request: BatchRequest,
    context: ContextDep,
    principal: SearchPrincipal,
    http_request: Request,
) -> Response:
    """The answers to many searches, in their order, each as it would be alone, or the problem that it met.

    All first pages are of one snapshot. Batches leave half of the server's threads to single searches.
    """
    asker, searcher = Asker.of(http_request, principal), context.live.searcher
    _check_hits(request, context)
    batch = _Batch(
        context, searcher, asker, http_request.scope, asker.arrived + _seconds(request, asker, context)
    )
    checked = [batch.checked(search) for search in request.searches]
    known = await batch.encoded([search for search in checked if isinstance(search, CheckedSearch)])
    results = await context.batch_turns.run(checked, lambda search: batch.answer(search, known))
    return Response(b'{"results":[' + b",".join(results) + b"]}", media_type="application/json")


def _check_hits(request: BatchRequest, context: Context) -> None:
    settings = context.settings
    asked = sum(search.top_k or settings.default_top_k for search in request.searches)
    most = _MOST_FULL_SEARCHES * settings.max_top_k
    if asked > most:
        raise QueryError(
            f"The searches ask for {asked:,} hits together; at most {most:,} are allowed. Lower their top_k, "
            "or send fewer searches at once.",
            "/searches",
        )


def _seconds(request: BatchRequest, asker: Asker, context: Context) -> float:
    """How long the whole batch may take."""
    settings = context.settings
    asked_ms = settings.max_deadline_ms if request.deadline_ms is None else request.deadline_ms
    return asker.deadline_seconds(asked_ms, settings)


class _Batch:
    """One batch: its searches run on one searcher, until a deadline."""

    def __init__(
        self, context: Context, searcher: Searcher, asker: Asker, scope: Scope, deadline: float
    ) -> None:
        self._context = context
        self._searcher = searcher
        self._asker = asker
        self._scope = scope
        self._deadline = deadline

    def checked(self, request: SearchRequest) -> CheckedSearch | Problem:
        """A search of the batch, checked; or why it cannot run."""
        settings = self._context.settings
        try:
            query = QueryReader(settings.max_query_characters, settings.max_image_pixels).read(request.query)
            return checked_search(request, query, self._asker, self._context, self._searcher)
        except ReelfindError as error:
            return problem_of(error, self._scope)

    async def encoded(self, searches: list[CheckedSearch]) -> EncodedTexts:
        """All texts of the batch, encoded in one call."""
        texts = [text for search in searches for text in texts_of(search.call.query)]
        tokens = any(self._searcher.reads_tokens(search.call.options) for search in searches)
        claim = Claim(self._asker.client, FIRST_STAGE_PAIRS, self._deadline, self._asker.is_wanted)
        searcher = self._searcher
        encoder = searcher.queues.texts.on_terms(CallTerms(claim.client, claim.deadline, claim.is_wanted))
        return await self._context.pool.run(
            lambda _share: encode_together(searcher.bundle, texts, tokens=tokens, encoder=encoder), claim
        )

    async def answer(self, search: CheckedSearch | Problem, known: EncodedTexts) -> bytes:
        """The JSON of one result, which `BatchResult` describes."""
        if isinstance(search, CheckedSearch):
            try:
                body = await answer_search(self._begun(search), self._context, known)
                return b'{"answer":' + body + b',"problem":null}'
            except ReelfindError as error:
                search = problem_of(error, self._scope)
            except Exception:
                instance = new_instance()
                logger.exception("a search of a batch failed, instance %s", instance)
                search = internal_problem(instance)
        return b'{"answer":null,"problem":' + search.model_dump_json(exclude_none=True).encode() + b"}"

    def _begun(self, search: CheckedSearch) -> CheckedSearch:
        """The search whose turn has come: its own deadline counts from now, but not beyond the batch's.

        Raises:
            OverloadedError: the batch's deadline has passed, or nobody waits for its answer any more.
        """
        now, is_wanted = time.monotonic(), self._asker.is_wanted
        if now >= self._deadline or (is_wanted is not None and not is_wanted()):
            raise OverloadedError(
                "The deadline of the batch passed before this search's turn came. Send fewer searches at "
                "once, or raise the batch's deadline_ms."
            )
        deadline = min(now + search.deadline_seconds, self._deadline)
        # The rankings of a batch would take the place of those that others read on: none is kept.
        return replace(
            search,
            call=replace(search.call, options=replace(search.call.options, deadline=deadline), keep=False),
            claim=replace(search.claim, deadline=deadline),
            deadline_seconds=max(0.0, deadline - now),
        )
