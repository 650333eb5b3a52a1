"""A search as it is sent to another process, and its answer. Both are pickled, between processes of ours."""

from dataclasses import dataclass, replace

from service.api.answers import as_told, search_body
from service.api.principal import Principal
from service.live import LiveLibrary
from service.search.asking import open_query
from service.search.encoded_query import EncodedTexts
from service.search.pages import Pages
from service.search.queries import SearchQuery
from service.search.results import SearchResult
from service.search.searcher import OpenSearch, Searcher, SearchOptions


@dataclass(frozen=True)
class SearchCall:
    """One search that may run.

    Attributes:
        query: what to find.
        top_k: number of hits.
        options: how to search, in which time.
        question: identifies what is asked: pages that follow are of the same question.
        page_token: which page is wanted; None: the first.
        principal: who asks.
        video_id: the video to search; None: all.
        keep: whether the ranking is kept for further pages; if not, one of them costs a new search.
    """

    query: SearchQuery
    top_k: int
    options: SearchOptions
    question: bytes
    page_token: str | None
    principal: Principal
    video_id: str | None = None
    keep: bool = True

    def answer(
        self, searcher: Searcher, live: LiveLibrary, pages: Pages, known: EncodedTexts | None = None
    ) -> tuple[SearchResult, bytes]:
        """Search. → The result, and the JSON that `SearchResponse` describes.

        Args:
            searcher: what is served now, or what the page token is of.
            live: the library that is served.
            pages: where rankings are kept.
            known: texts that were encoded before.

        Raises:
            ReelfindError: see `service.search.asking.ask`.
        """

        def ask(asked: Searcher, allowed: SearchOptions) -> OpenSearch:
            options = asked.check(allowed, self.query)
            return open_query(asked, self.query, self.top_k, options, known=known, video_id=self.video_id)

        options, question, view = self.options, self.question, self.principal.view
        if self.page_token is None:
            result = live.search(
                searcher, lambda asked: pages.first(asked, question, options, ask, view, keep=self.keep)
            )
        else:
            result = pages.following(searcher, question, self.page_token, "/page_token", options, ask, view)
        return result, search_body(as_told(result, self.principal), options.parts)

    def to_send(self) -> "SearchCall":
        """The same call without what only this process knows."""
        return replace(self, options=replace(self.options, is_wanted=None))


@dataclass(frozen=True)
class Order:
    """A call for another process.

    Attributes:
        call: the call.
        snapshot: the mark of the snapshot that must answer it.
        parent: the span that it is within, as `model.runtime.tracing.span` takes it; None: nobody asks.
    """

    call: SearchCall
    snapshot: bytes
    parent: dict[str, str] | None


#: A call of a model, an index or a cache that metrics count: the name of the method of `Metrics`, and what it
#: is given.
Observed = tuple[str, tuple[str | int, ...]]


@dataclass(frozen=True)
class Answer:
    """What another process answers.

    Attributes:
        result: without its hits; None: the process has not answered.
        body: the JSON.
        observed: what metrics count, since the answer before.
    """

    result: SearchResult | None
    body: bytes
    observed: list[Observed]
