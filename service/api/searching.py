"""One search of a request: checked, and then answered when its turn comes."""

import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from starlette.requests import Request

from model.runtime.tracing import span
from service.api.connections import client_of, presence_of
from service.api.context import Context
from service.api.filters import to_filter
from service.api.pool import Claim
from service.api.principal import Principal
from service.api.schemas import MomentsRequest, SearchRequest
from service.api.search_processes.call import SearchCall
from service.api.time_budget import time_budget_seconds
from service.errors import NotUnderstoodError
from service.search.encoded_query import EncodedTexts
from service.search.page_tokens import question_mark
from service.search.queries import PictureQuery, SearchQuery, examples_of, texts_of
from service.search.query import check_top_k
from service.search.results import ALL_PARTS, SearchResult
from service.search.searcher import Searcher, SearchOptions
from service.search.sorting import parse_sort
from service.search.texts import Modalities
from service.settings import Settings

#: What a search found, and its JSON.
Answered = tuple[SearchResult, bytes]
#: What the first stage of a search costs, in pairs that the matching head could match meanwhile.
FIRST_STAGE_PAIRS = 50
# Of a search's share of the time until its deadline, the part that the matching head may take: the rest is
# for the other stages, and for what cannot be foreseen.
_MATCHING_PART = 0.5


class Asker(NamedTuple):
    """Who asks.

    Attributes:
        principal: whom the key or session names.
        client: from where.
        arrived: when the request did, in seconds of `time.monotonic()`.
        is_wanted: whether they are still there; None: they are.
        budget_seconds: how long a proxy before the service waits for the answer; None: as long as it takes.
    """

    principal: Principal
    client: str
    arrived: float
    is_wanted: Callable[[], bool] | None
    budget_seconds: float | None = None

    @classmethod
    def of(cls, request: Request, principal: Principal) -> "Asker":
        """Who sent a request that has just arrived.

        Raises:
            QueryError: a header of the request is invalid.
        """
        presence = presence_of(request.scope)
        is_wanted = None if presence is None else presence.is_here
        budget = time_budget_seconds(request.headers)
        return cls(principal, client_of(request.scope), time.monotonic(), is_wanted, budget)

    def deadline_seconds(self, asked_ms: int | None, settings: Settings) -> float:
        """How long the request may take that asks for this deadline; None: for the default one."""
        allowed = settings.deadline_seconds(asked_ms)
        return allowed if self.budget_seconds is None else min(allowed, self.budget_seconds)


@dataclass(frozen=True)
class CheckedSearch:
    """A search that may run.

    Attributes:
        searcher: what to search: what is served now, or what the page token is of.
        call: the search itself.
        deadline_seconds: how long it may take.
        claim: what it asks of the pool.
    """

    searcher: Searcher
    call: SearchCall
    deadline_seconds: float
    claim: Claim


def checked_search(
    request: MomentsRequest,
    query: SearchQuery,
    asker: Asker,
    context: Context,
    searcher: Searcher,
    video_id: str | None = None,
) -> CheckedSearch:
    """Check what a request asks for.

    Args:
        request: the request.
        query: its query, read.
        asker: who asks.
        context: the app's.
        searcher: what is served now.
        video_id: the video to search; None: all.

    Raises:
        QueryError: a value is out of range, or the bundle has no probabilities.
        PageGoneError: the page that is asked for is not there any more.
    """
    settings, page_token, principal = context.settings, request.page_token, asker.principal
    top_k = settings.default_top_k if request.top_k is None else request.top_k
    check_top_k(top_k, settings.max_top_k)
    if page_token is not None:
        # What was excluded since the first page is not in the others.
        searcher = context.live.curated(context.pages.searcher_of(page_token, searcher, "/page_token"))
    deadline_seconds = asker.deadline_seconds(request.deadline_ms, settings)
    options = SearchOptions(
        group_by="moment",
        modalities=Modalities(**request.modalities.model_dump()),
        min_probability=request.min_probability,
        min_score=None if request.threshold is None else request.threshold.score,
        min_similarity=None if request.threshold is None else request.threshold.similarity,
        sort=None if request.sort is None else parse_sort(request.sort),
        parts=ALL_PARTS if request.fields is None else frozenset(request.fields),
        rerank=request.rerank,
        num_candidates=request.num_candidates,
        num_salient_frames=request.num_salient_frames,
        # Waiting for a thread counts too.
        deadline=asker.arrived + deadline_seconds,
        explain=request.explain,
        max_pairs=settings.max_search_pairs,
        client=asker.client,
        is_wanted=asker.is_wanted,
    )
    if isinstance(request, SearchRequest):
        options = replace(
            options,
            group_by=request.group_by,
            moments_per_video=request.moments_per_video,
            where=None if request.filter is None else to_filter(request.filter),
        )
    searcher.check(options, query)
    texts = max(1, sum(1 for _ in texts_of(query)))
    pairs = min(texts * searcher.most_pairs(options), settings.max_search_pairs)
    claim = Claim(asker.client, FIRST_STAGE_PAIRS * texts + pairs, options.deadline, options.is_wanted)
    # A further page is of the same ranking, whatever of it is wanted, and in which time.
    same = request.model_dump(exclude={"page_token", "fields", "explain", "deadline_ms"})
    question = question_mark(video_id, same, _pictures(query), options.where, principal.view)
    call = SearchCall(query, top_k, options, question, page_token, principal, video_id)
    return CheckedSearch(searcher, call, deadline_seconds, claim)


def _pictures(query: SearchQuery) -> list[bytes]:
    """What identifies the pictures that were sent with a query."""
    sent = (each for each in examples_of(query) if isinstance(each, PictureQuery))
    return [hashlib.sha256(picture.data).digest() for picture in sent]


async def answer_search(search: CheckedSearch, context: Context, known: EncodedTexts | None = None) -> bytes:
    """Wait for a turn, search, and return the answer's JSON, which `SearchResponse` describes.

    Args:
        search: what to search for.
        context: the app's.
        known: texts that were encoded before.

    Raises:
        OverloadedError: the search cannot be in time.
        ReelfindError: see `service.search.asking.ask`.
    """

    def call(share: float) -> SearchCall:
        seconds = _MATCHING_PART * share * search.deadline_seconds
        return replace(search.call, options=replace(search.call.options, match_seconds=seconds))

    def run(share: float) -> Answered:
        return call(share).answer(search.searcher, context.live, context.pages, known)

    async def route(share: float, here: Callable[[], Awaitable[Answered]]) -> Answered:
        asked = call(share)
        with context.crew.place(asked) as member:
            if member is None:
                return await here()
            answer = await context.crew.answer(member, asked, search.searcher)
            if answer is None or answer.result is None:
                return await here()
        context.metrics.observe_search_elsewhere()
        if answer.result.next_page_token is not None:
            # That its further pages may be asked for.
            context.pages.hold(search.searcher)
        return answer.result, answer.body

    with span("search") as found:
        try:
            # What is known is known in this process.
            result, body = await context.pool.run(run, search.claim, route if known is None else None)
        except NotUnderstoodError:
            context.metrics.observe_not_understood()
            raise
        found.set("reelfind.snapshot", result.snapshot)
        found.set("reelfind.num_candidates", result.num_candidates)
        found.set("reelfind.rerank_skipped", result.rerank_skipped)
    context.metrics.observe_search(result)
    return body
