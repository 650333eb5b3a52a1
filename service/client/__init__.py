"""The client of the HTTP API, for scripts and for `reelfind` itself. Users import it as `reelfind.client`.

It needs httpx and pydantic, and imports nothing else of Reelfind.
"""

from service.client import job_answers, library_answers, requests, search_answers
from service.client.async_client import AsyncClient
from service.client.client import Client
from service.client.downloads import Progress
from service.client.errors import (
    ChangedError,
    ClientError,
    ConflictError,
    ForbiddenError,
    GoneError,
    InvalidRequestError,
    NoAnswerError,
    NoKeyError,
    NotFoundError,
    ProblemError,
    TimedOutError,
    TooManyRequestsError,
    UnavailableError,
    UnexpectedAnswerError,
)
from service.client.retries import Retries

__all__ = [
    "AsyncClient",
    "ChangedError",
    "Client",
    "ClientError",
    "ConflictError",
    "ForbiddenError",
    "GoneError",
    "InvalidRequestError",
    "NoAnswerError",
    "NoKeyError",
    "NotFoundError",
    "ProblemError",
    "Progress",
    "Retries",
    "TimedOutError",
    "TooManyRequestsError",
    "UnavailableError",
    "UnexpectedAnswerError",
    "job_answers",
    "library_answers",
    "requests",
    "search_answers",
]
