"""The errors of the client.

ClientError
├── NoAnswerError             the service cannot be reached, or the connection is lost
│   └── TimedOutError         it does not answer in time
├── UnexpectedAnswerError     the answer is not one of Reelfind's
└── ProblemError              the service says what is wrong (RFC 9457)
    ├── InvalidRequestError   400, 413, 415, 416, 422: a value is invalid
    ├── NoKeyError            401: a key is needed, or the key is not known
    ├── ForbiddenError        403: the key or the service does not allow it
    ├── NotFoundError         404
    ├── ConflictError         409: what the library or its bundle has does not allow it
    ├── GoneError             410: a file is missing, or a page cannot be served any more
    ├── ChangedError          412: somebody else has changed it
    ├── TooManyRequestsError  429
    └── UnavailableError      503: busy, not ready, or damaged
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpx
from pydantic import ValidationError

from service.client.search_answers import InvalidValue, Problem

_MOST_CHARACTERS = 300


class ClientError(Exception):
    """Base of every error of the client."""


class NoAnswerError(ClientError):
    """The service cannot be reached, or the connection is lost.

    `sent` says whether the service may have got the request.
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class TimedOutError(NoAnswerError):
    """The service does not answer in time."""


class UnexpectedAnswerError(ClientError):
    """The answer is not one of Reelfind's: something else may be at the address."""


class ProblemError(ClientError):
    """The service says what is wrong.

    Attributes:
        problem: the problem document.
        retry_after_seconds: when the service says to ask again; None: it does not.
    """

    def __init__(self, problem: Problem, retry_after_seconds: float | None = None) -> None:
        super().__init__(f"{problem.title} ({problem.status}): {problem.detail}")
        self.problem = problem
        self.retry_after_seconds = retry_after_seconds

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status

    @property
    def kind(self) -> str:
        """The kind of problem, such as `query-not-understood`: the last part of its `type`."""
        return self.problem.type.rpartition(":")[2]

    @property
    def title(self) -> str:
        """The kind of problem in words."""
        return self.problem.title

    @property
    def detail(self) -> str:
        """The value at fault, and the remedy."""
        return self.problem.detail

    @property
    def invalid_values(self) -> list[InvalidValue]:
        """Every invalid value of the request, with its place."""
        return self.problem.errors or []


class InvalidRequestError(ProblemError):
    """A value of the request is invalid."""


class NoKeyError(ProblemError):
    """A key is needed, or the key is not known: give `key`, or set REELFIND_KEY."""


class ForbiddenError(ProblemError):
    """The key, or the service, does not allow it."""


class NotFoundError(ProblemError):
    """There is no such thing."""


class ConflictError(ProblemError):
    """What the library or its bundle has does not allow it."""


class GoneError(ProblemError):
    """A file is missing, or a page cannot be served any more."""


class ChangedError(ProblemError):
    """Somebody else has changed it since it was read: read it again."""


class TooManyRequestsError(ProblemError):
    """There were too many requests: ask again after `retry_after_seconds`."""


class UnavailableError(ProblemError):
    """The service is busy or not ready, or a part of the library is damaged."""


_BY_STATUS: Mapping[int, type[ProblemError]] = {
    **dict.fromkeys((400, 413, 415, 416, 422), InvalidRequestError),
    401: NoKeyError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: GoneError,
    412: ChangedError,
    429: TooManyRequestsError,
    503: UnavailableError,
}


def refusal(response: httpx.Response, retry_after_seconds: float | None) -> ClientError:
    """The error that an answer other than a success stands for."""
    status = response.status_code
    if not response.is_error:
        return UnexpectedAnswerError(
            f"{response.request.url} answers {status} {response.reason_phrase} "
            f"({response.headers.get('location', 'no location')}): give the address that it leads to."
        )
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        # From a proxy in front of the service, for example.
        problem = Problem(
            type="about:blank",
            title=response.reason_phrase or "The request failed",
            status=status,
            detail=response.text[:_MOST_CHARACTERS] or f"{response.request.url} says nothing more.",
            instance="",
        )
    return _BY_STATUS.get(status, ProblemError)(problem, retry_after_seconds)


@contextmanager
def own_errors(url: httpx.URL) -> Iterator[None]:
    """Raise errors of this module in the place of those of a connection.

    Raises:
        NoAnswerError: the connection fails.
    """
    try:
        yield
    except httpx.RequestError as error:
        raise _lost(error, str(url)) from error


def _lost(error: httpx.RequestError, url: str) -> NoAnswerError:
    """The error that a failure of the connection stands for."""
    is_sent = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
    if isinstance(error, httpx.TimeoutException):
        return TimedOutError(
            f"{url} does not answer in time: is it busy? Give the client a longer `timeout`.", sent=is_sent
        )
    said = str(error) or type(error).__name__
    if is_sent:
        return NoAnswerError(f"{url} gave no whole answer ({said}): see the service's log.", sent=True)
    return NoAnswerError(
        f"{url} cannot be reached ({said}): check the address, and that `reelfind serve` runs there.",
        sent=False,
    )
