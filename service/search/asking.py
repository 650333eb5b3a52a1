"""Asks a searcher a query of any kind: what the API and the command line call."""

from service.search.encoded_query import EncodedTexts
from service.search.queries import SearchQuery, SequenceQuery
from service.search.results import SearchResult
from service.search.searcher import OpenSearch, Searcher, SearchOptions
from service.search.sequences import search_sequence


def ask(
    searcher: Searcher,
    query: SearchQuery,
    top_k: int,
    options: SearchOptions,
) -> SearchResult:
    """The `top_k` best moments or videos for a query.

    Args:
        searcher: searches.
        query: its texts are cleaned, see `clean_text`.
        top_k: number of hits, at least 1.
        options: how to search.

    Raises:
        As `Searcher.search` and `search_sequence`.
    """
    return open_query(searcher, query, top_k, options).result


def open_query(
    searcher: Searcher,
    query: SearchQuery,
    top_k: int,
    options: SearchOptions,
    *,
    known: EncodedTexts | None = None,
    video_id: str | None = None,
) -> OpenSearch:
    """As `ask`, and further pages by `Searcher.page`; sequences have none.

    Args:
        searcher: and what follows: as for `ask`.
        query: see there.
        top_k: see there.
        options: see there.
        known: texts that were encoded before.
        video_id: the video to search; None: all.

    Raises:
        As `ask` and `Searcher.search_video`.
    """
    if isinstance(query, SequenceQuery):
        return OpenSearch(search_sequence(searcher, query, top_k, options, known, video_id), None, None)
    if video_id is not None:
        return searcher.open_video(video_id, query, top_k, options)
    return searcher.open(query, top_k, options, known)
