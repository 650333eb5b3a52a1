"""Pages of searches: the rankings that are kept so that the next page costs no new search.

A ranking is kept for a while, within a number and a size. Where it is gone, the search runs again on the same
snapshot, and goes on if it comes to the same; a snapshot is held for as long as pages of it may be asked for,
but for the newest ones only. Whatever cannot be continued is gone: pages of two rankings are never mixed.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from cachetools import TLRUCache, TTLCache

from service.errors import PageGoneError
from service.search.blocks import START, Position
from service.search.page_tokens import PageToken, read_token, snapshot_of, write_token
from service.search.results import SearchResult
from service.search.searcher import OpenSearch, Searcher, SearchOptions
from service.search.views import WHOLE, View

#: Rankings that are kept, at most, the bytes that they may take, and for how long after they were last read.
MOST_ANSWERS = 1000
MOST_BYTES = 64 << 20
KEPT_SECONDS = 600.0
# Snapshots that are held, at most.
_MOST_SNAPSHOTS = 3

Open = Callable[[Searcher, SearchOptions], OpenSearch]


@dataclass
class _Kept:
    """A ranking; one thread at a time reads it."""

    opened: OpenSearch
    size: int
    lock: threading.Lock = field(default_factory=threading.Lock)


class Pages:
    """Answers searches page by page. Many threads may use it at once.

    Args:
        most_bytes: how much memory all rankings that are kept may take, about.
        kept_seconds: for how long a ranking, and its snapshot, are kept after they were last used.
        clock: the time in seconds.
    """

    def __init__(
        self,
        most_bytes: int = MOST_BYTES,
        kept_seconds: float = KEPT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most_bytes = most_bytes
        self._answers: TLRUCache[tuple[bytes, ...], _Kept] = TLRUCache(
            most_bytes, lambda _key, _value, now: now + kept_seconds, clock, lambda kept: kept.size
        )
        self._snapshots: TTLCache[bytes, Searcher] = TTLCache(_MOST_SNAPSHOTS, kept_seconds, clock)
        #: The snapshots that were held when rankings of others were let go of last.
        self._held: frozenset[bytes] = frozenset()
        self._lock = threading.Lock()

    def expire(self) -> None:
        """Let go of what was not used for long: snapshots take memory, and keep files from being removed."""
        with self._lock:
            self._answers.expire()
            self._snapshots.expire()

    def hold(self, searcher: Searcher) -> bytes:
        """Keep a searcher, since pages of it may be asked for; gives the mark of its snapshot."""
        mark = searcher.mark
        with self._lock:
            self._snapshots.pop(mark, None)
            self._snapshots[mark] = searcher
            held = frozenset(self._snapshots)
            if held != self._held:  # looking through all rankings takes longer than all else here
                for key in [key for key in self._answers if key[0] not in held]:
                    del self._answers[key]
                self._held = held
        return mark

    def searcher_of(self, text: str, served: Searcher, field: str) -> Searcher:
        """The searcher that a page token is of.

        Args:
            text: the token.
            served: the searcher that is served now.
            field: the name of the field that holds the token, for errors.

        Raises:
            QueryError: it is not a token.
            PageGoneError: its snapshot is not held any more.
        """
        mark = snapshot_of(text, field)
        with self._lock:
            searcher = self._snapshots.get(mark)
        if searcher is None and mark == served.mark:
            searcher = served
        if searcher is None:
            raise PageGoneError(
                "The library has changed since the first page, and the state that it was of is not held any "
                "more. Leave page_token out to begin again with the first page."
            )
        return searcher

    def first(
        self,
        searcher: Searcher,
        question: bytes,
        options: SearchOptions,
        ask: Open,
        view: View = WHOLE,
        *,
        keep: bool = True,
    ) -> SearchResult:
        """The first page of an answer, and the token for the next one. Raises as `ask`.

        `searcher` has no view; `ask` gets it as it is seen in `view`, which `question` also says. Without
        `keep`, the ranking is not kept: the next page costs a new search.
        """
        opened = ask(searcher.seen_by(view), options)
        # The ranking is kept without its first hits.
        kept = _Kept(replace(opened, result=replace(opened.result, hits=[])), 0)
        return self._answered(searcher, question, kept, opened, keep=keep)

    def following(
        self,
        searcher: Searcher,
        question: bytes,
        text: str,
        field: str,
        options: SearchOptions,
        ask: Open,
        view: View = WHOLE,
    ) -> SearchResult:
        """The page that a token asks for.

        Args:
            searcher: what `searcher_of` gave.
            question: identifies what is asked.
            text: the token.
            field: the name of the field that holds it, for errors.
            options: of the request.
            ask: searches anew, where the ranking is not kept.
            view: see `first`.

        Raises:
            QueryError: the token was not given for this question.
            PageGoneError: the search cannot be continued.
            And as `ask`.
        """
        token = read_token(text, searcher.token_key, question, field)
        position = Position(token.block, token.offset)
        seen = searcher.seen_by(view)
        with self._lock:
            kept = self._answers.get((token.snapshot, question, token.first))
        if kept is None:
            # What is new is not kept by others yet, and needs no turn.
            opened = ask(seen, _as_before(seen, options, token))
            kept = _Kept(replace(opened, result=replace(opened.result, hits=[])), 0)
        with kept.lock:
            opened = kept.opened
            num_reranked = opened.result.num_candidates if opened.result.reranked else -1
            if opened.blocks is None or num_reranked != token.num_reranked:
                raise _changed()
            if opened.blocks.digest(START) != token.first:
                raise _changed()
            try:
                page = seen.page(opened, position, options, token.current if token.offset else None)
            except ValueError:
                raise _changed() from None
            return self._answered(searcher, question, kept, page)

    def _answered(
        self, searcher: Searcher, question: bytes, kept: _Kept, page: OpenSearch, *, keep: bool = True
    ) -> SearchResult:
        """A page with the token for the next one; keeps the ranking for that, if it is to be kept."""
        blocks, following = page.blocks, page.following
        if blocks is None or following is None:
            return page.result
        snapshot = self.hold(searcher)
        first = blocks.digest(START)
        token = PageToken(
            snapshot,
            question,
            following.block,
            following.offset,
            first,
            blocks.digest(following) if following.offset else bytes(8),
            page.result.num_candidates if page.result.reranked else -1,
        )
        if keep:
            self._keep((snapshot, question, first), kept, blocks.num_bytes)
        return replace(page.result, next_page_token=write_token(token, searcher.token_key))

    def _keep(self, key: tuple[bytes, bytes, bytes], kept: _Kept, size: int) -> None:
        """Keep a ranking in place of the one that was kept for the same answer."""
        with self._lock:
            self._answers.pop(key, None)
            if size <= self._most_bytes:
                kept.size = size
                self._answers[key] = kept
                while len(self._answers) > MOST_ANSWERS:
                    self._answers.popitem()


def _as_before(searcher: Searcher, options: SearchOptions, token: PageToken) -> SearchOptions:
    """The options with which a search comes to the ranking that a token is of, if it can in time."""
    if token.num_reranked < 0:
        return options if searcher.cannot_rerank else replace(options, rerank=False)
    return replace(options, num_candidates=max(1, token.num_reranked))


def _changed() -> PageGoneError:
    return PageGoneError(
        "The ranking is not kept any more, and now comes to another: parts of the library are damaged, or "
        "the time did not suffice. Leave page_token out to begin again with the first page."
    )
