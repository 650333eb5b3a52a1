"""The time that a proxy leaves to a request, from the header that Envoy and what builds on it send."""

import re

from starlette.datastructures import Headers

from model.runtime.messages import shorten
from service.errors import QueryError

HEADER = "X-Envoy-Expected-Rq-Timeout-Ms"

#: What OpenAPI says of the header, for routes whose requests have a deadline.
DESCRIBED = {
    "parameters": [
        {
            "name": HEADER,
            "in": "header",
            "required": False,
            "schema": {"type": "integer", "minimum": 1},
            "description": "Milliseconds that a proxy in front still waits for the answer. A deadline_ms, or "
            "the server's own deadline, that is longer counts as that.",
        }
    ]
}
_MILLISECONDS = re.compile(r"0*[1-9][0-9]{0,15}")


def time_budget_seconds(headers: Headers) -> float | None:
    """How long a proxy still waits for the answer to a request; None: none says so.

    Raises:
        QueryError: the header is no whole number of milliseconds.
    """
    value = headers.get(HEADER)
    if value is None:
        return None
    if not _MILLISECONDS.fullmatch(value):
        raise QueryError(
            f"The header {HEADER} must be a whole number of milliseconds such as 1500, not {shorten(value)}. "
            "Correct it, or leave it out."
        )
    return int(value) / 1000
