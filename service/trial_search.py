"""A search that nobody asked for: it shows whether a snapshot answers, and reads what searches need."""

import time

from indexer.library.row_cache import reading_anew
from service.search.encoded_query import encode_text_queries
from service.search.results import SearchResult
from service.search.searcher import Searcher, SearchOptions

_TEXT = "a dog runs on a beach"


def trial_search(searcher: Searcher, seconds: float | None = None, *, rerank: bool = True) -> SearchResult:
    """Search for one video with one candidate. All that this needs is read, whatever is kept in memory.

    Args:
        searcher: what is searched.
        seconds: the deadline; None: there is none.
        rerank: whether to go through all stages; if not, the matching head is left to others.

    Raises:
        LibraryError: a table cannot be read.
        BundleError: the model fails.
    """
    tokens = rerank and searcher.uses_matcher
    (query,) = encode_text_queries(searcher.bundle, [_TEXT], tokens=tokens)
    options = SearchOptions(
        group_by="moment",
        rerank=rerank,
        num_candidates=1,
        num_salient_frames=1,
        deadline=None if seconds is None else time.monotonic() + seconds,
    )
    with reading_anew():
        return searcher.search_encoded(query, 1, options)
