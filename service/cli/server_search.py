"""`reelfind search --server URL`: the same search, answered by a service."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter, ValidationError

from model.runtime.errors import InputError, ReelfindError
from service.client_errors import shown_errors
from service.search.queries import (
    FeedbackQuery,
    FrameQuery,
    MixedQuery,
    MomentQuery,
    PictureQuery,
    SearchQuery,
    SequenceQuery,
    TextQuery,
    VideoQuery,
)
from service.search.results import SearchResult

_SEARCH_RESULT = TypeAdapter(SearchResult)


def search_on_server(
    url: str, query: SearchQuery, options: Mapping[str, Any], *, count_all: bool
) -> tuple[SearchResult, int | None]:
    """The answer of the service at an address, and with `count_all` the number of all its videos.

    Raises:
        InputError: the address cannot be, or the service refuses the request.
        ReelfindError: it does not answer, or not as this version does.
    """
    # Import late: searches of a library here need no HTTP.
    from service.client import Client

    try:
        with shown_errors(), Client(url) as client:
            answer = client.search(_to_wire(query), image=_picture_of(query), **options)
            num_all = client.library().num_videos if count_all else None
    except ReelfindError:
        raise
    except ValueError as error:
        # The address or the key cannot be, or JSON has no such value.
        raise InputError(str(error)) from error
    try:
        return _SEARCH_RESULT.validate_json(answer.model_dump_json()), num_all
    except ValidationError as error:
        raise ReelfindError(
            f"{url} answers as another version of Reelfind does ({error.errors()[0]['msg']}): use the "
            "`reelfind` of its version"
        ) from None


def _picture_of(query: SearchQuery) -> bytes | None:
    match query:
        case PictureQuery():
            return query.data
        case MixedQuery(example=PictureQuery(data=data)):
            return data
        case FeedbackQuery(original=PictureQuery() | MixedQuery() as original):
            return _picture_of(original)
    return None


def _to_wire(query: SearchQuery) -> Any:
    """A query as a request has it."""
    match query:
        case PictureQuery():
            return {"image": "upload"}
        case TextQuery() | FrameQuery() | MomentQuery() | VideoQuery():
            return asdict(query)
        case MixedQuery():
            example = _to_wire(query.example)
            return {**_to_wire(query.text), "example": example, "text_weight": query.text_weight}
        case FeedbackQuery():
            liked, unliked = ([_reference(each) for each in some] for some in (query.like, query.unlike))
            return {
                "original": None if query.original is None else _to_wire(query.original),
                "like": liked,
                "unlike": unliked,
                "alpha": query.alpha,
                "beta": query.beta,
                "gamma": query.gamma,
            }
        case SequenceQuery():
            steps = [_to_wire(step) for step in query.steps]
            return {"sequence": steps, "within_seconds": query.within_seconds}


def _reference(example: FrameQuery | MomentQuery) -> dict[str, Any]:
    return {name: value for name, value in asdict(example).items() if name != "include_example"}
