"""The library as whoever asks sees it. Routes ask of it alone: what a key's folder hides is not there."""

from collections.abc import Callable
from typing import TypeVar

from service.api.context import Context
from service.api.principal import Principal
from service.search.searcher import Searcher

Result = TypeVar("Result")


def seen(context: Context, principal: Principal) -> Searcher:
    """What is served, as somebody sees it.

    Raises:
        NotReadyError: no snapshot is served.
    """
    return context.live.searcher.seen_by(principal.view)


def read_seen(context: Context, principal: Principal, read: Callable[[Searcher], Result]) -> Result:
    """Let what is served, as somebody sees it, read something; see `LiveLibrary.read`."""
    return context.live.read(lambda searcher: read(searcher.seen_by(principal.view)))
