"""The options of `reelfind search` that choose videos, as one filter."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from indexer.library.records import displayable
from model.runtime.names import find_as_seen
from model.runtime.remote.path import real_path
from service.errors import QueryError
from service.search import conditions
from service.search.filters import Filter, Or, joined


def filter_of_options(
    text: str | None,
    folders: Sequence[Path],
    min_duration: float | None,
    max_duration: float | None,
) -> Filter | None:
    """The filter of the options together; None where none is given.

    Raises:
        QueryError: the text is not the JSON of a filter, or a value cannot be.
    """
    under = [conditions.under("path", displayable(_real(folder)), "/--folder") for folder in folders]
    bounds = {"gte": min_duration, "lte": max_duration}
    has_bounds = min_duration is not None or max_duration is not None
    return joined(
        None if text is None else parse_filter(text),
        Or(tuple(under)) if under else None,
        conditions.within("duration_seconds", bounds, "") if has_bounds else None,
    )


def filter_request(
    text: str | None,
    folders: Sequence[Path],
    min_duration: float | None,
    max_duration: float | None,
) -> Any:
    """The same as a service takes it, which has the folders: they are not looked for here.

    Raises:
        QueryError: the text is not the JSON of a filter.
    """
    parts: list[dict[str, Any]] = []
    if text is not None:
        parse_filter(text)
        parts.append(json.loads(text))
    if folders:
        under = [{"op": "under", "field": "path", "folder": displayable(folder)} for folder in folders]
        parts.append({"op": "or", "filters": under})
    bounds = {"gte": min_duration, "lte": max_duration}
    if given := {side: seconds for side, seconds in bounds.items() if seconds is not None}:
        parts.append({"op": "range", "field": "duration_seconds", **given})
    if len(parts) > 1:
        return {"op": "and", "filters": parts}
    return parts[0] if parts else None


def parse_filter(text: str) -> Filter:
    """A filter written as JSON, as in a request.

    Raises:
        QueryError: it is not one.
    """
    # Import late: the wire format takes longer to load than all else that most searches need.
    from service.api.filters import FILTER_EXAMPLE, RequestFilter, to_filter
    from service.api.invalid_values import invalid_value

    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise QueryError(f"The filter is not JSON: {error}. Write one like {FILTER_EXAMPLE}.") from None
    body = {"filter": value}
    try:
        given = TypeAdapter(RequestFilter).validate_python(value)
    except ValidationError as error:
        issues = [{**issue, "loc": ("body", "filter", *issue["loc"])} for issue in error.errors()]
        raise QueryError(
            " ".join(invalid_value(issue, body, FILTER_EXAMPLE).detail for issue in issues)
        ) from None
    return to_filter(given)


def _real(folder: Path) -> Path:
    """A folder as the library knows it, which need not exist any more."""
    return real_path(find_as_seen(folder))
