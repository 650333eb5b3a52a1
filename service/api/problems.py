"""Turns every error into an HTTP response: a problem document (RFC 9457)."""

import logging
import math
import uuid
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from indexer.library.errors import AwayError, DamagedRowsError, StoreAwayError, VectorsAwayError
from model.runtime.errors import InputError, ReelfindError
from model.runtime.messages import shorten
from service.api.invalid_values import invalid_value
from service.api.presence import CLIENT_LEFT, ClientLeftError
from service.api.principal import identity_of
from service.api.schemas import InvalidValue, Problem
from service.errors import (
    CannotAnswerError,
    EncodersBusyError,
    JobEndedError,
    JobsOffError,
    JobStoreError,
    MediaChangedError,
    MediaGoneError,
    MediaNotAllowedError,
    MediaUnreadableError,
    NoEncodersError,
    NoImageQueryError,
    NoLogInError,
    NoSpaceError,
    NotFoundError,
    NotLoggedInError,
    NotPermittedError,
    NotReadyError,
    NotUnderstoodError,
    OverloadedError,
    PageGoneError,
    PreconditionFailedError,
    QueryError,
    RightsError,
    SnapshotRefusedError,
    TooManyJobsError,
    TooManyRequestsError,
    UploadOffsetError,
    UploadTooLargeError,
    WritesOffError,
)

logger = logging.getLogger("reelfind")

MEDIA_TYPE = "application/problem+json"
_SEARCH_EXAMPLE = '{"query": {"text": "a dog runs on a beach"}, "top_k": 10}'
_ANNOTATION_EXAMPLE = '{"title": "A day at sea", "tags": ["sea", "dog"], "note": null}'
_JOB_EXAMPLE = '{"paths": ["/media/2024"]}'
_QUESTION_EXAMPLE = '{"question": {"text": "what colour is the car"}}'


class ProblemKind(NamedTuple):
    """A kind of problem: its status, the last part of its type, and its title."""

    status: int
    slug: str
    title: str


INVALID = ProblemKind(422, "invalid-request", "The request is invalid")
BODY_TOO_LARGE = ProblemKind(413, "body-too-large", "The request's body is too large")
SLOW_REQUEST = ProblemKind(408, "request-timeout", "The request did not arrive in time")
MALFORMED = ProblemKind(400, "malformed-request", "The request is not valid HTTP")
TOO_MANY_CONNECTIONS = ProblemKind(503, "too-many-connections", "Too many connections are open")
UNKNOWN_HOST = ProblemKind(403, "unknown-host", "The service is not known by this name")
TOO_MANY_REQUESTS = ProblemKind(429, "too-many-requests", "Too many requests")
CROSS_ORIGIN = ProblemKind(403, "cross-origin", "The request comes from another site")
NOT_JSON = ProblemKind(415, "not-json", "The body is not declared as JSON")
INTERNAL = ProblemKind(500, "internal-error", "The server failed")
INTERNAL_DETAIL = "The request could not be answered. The server's log has the error under this instance."
_BY_ERROR: Mapping[type[ReelfindError], ProblemKind] = {
    NotUnderstoodError: ProblemKind(422, "query-not-understood", "The query is not understood"),
    InputError: INVALID,
    DamagedRowsError: ProblemKind(503, "damaged", "A part of the library is damaged"),
    VectorsAwayError: ProblemKind(503, "vectors-away", "The server of the vectors does not answer"),
    StoreAwayError: ProblemKind(503, "store-away", "The object store of the library does not answer"),
    NotFoundError: ProblemKind(404, "not-found", "Not found"),
    WritesOffError: ProblemKind(403, "writes-off", "Clients may not change the library"),
    JobsOffError: ProblemKind(403, "jobs-off", "Clients may not start jobs"),
    JobEndedError: ProblemKind(409, "job-ended", "The job has ended"),
    UploadTooLargeError: BODY_TOO_LARGE,
    UploadOffsetError: ProblemKind(409, "upload-offset", "The part does not go on where the last one ended"),
    NoSpaceError: ProblemKind(507, "no-space", "The disk has no room for the video"),
    TooManyJobsError: ProblemKind(503, "too-many-jobs", "Too many jobs are under way"),
    PreconditionFailedError: ProblemKind(412, "precondition-failed", "It has changed meanwhile"),
    CannotAnswerError: ProblemKind(409, "cannot-answer", "Questions cannot be answered"),
    NoImageQueryError: ProblemKind(409, "no-image-query", "Pictures cannot be queries"),
    SnapshotRefusedError: ProblemKind(409, "snapshot-refused", "The new snapshot is not served"),
    NotLoggedInError: ProblemKind(401, "not-logged-in", "The service does not know who asks"),
    NotPermittedError: ProblemKind(403, "not-permitted", "You may not do this"),
    NoLogInError: ProblemKind(409, "no-log-in", "The service has no log-in"),
    TooManyRequestsError: TOO_MANY_REQUESTS,
    JobStoreError: ProblemKind(503, "jobs-unavailable", "Jobs cannot be read or written"),
    RightsError: ProblemKind(503, "rights-unavailable", "Keys or users cannot be read"),
    MediaNotAllowedError: ProblemKind(403, "media-not-allowed", "The video's file may not be played"),
    MediaChangedError: ProblemKind(409, "media-changed", "The video's file has changed"),
    MediaGoneError: ProblemKind(410, "media-gone", "The video's file is missing"),
    PageGoneError: ProblemKind(410, "page-gone", "The page cannot be served any more"),
    MediaUnreadableError: ProblemKind(409, "media-unreadable", "The video's file cannot be decoded"),
    NoEncodersError: ProblemKind(503, "no-encoders", "No streams and clips are made"),
    EncodersBusyError: ProblemKind(503, "encoders-busy", "All encoders are in use"),
    OverloadedError: ProblemKind(503, "overloaded", "Too many searches are waiting"),
    NotReadyError: ProblemKind(503, "not-ready", "No snapshot is served"),
}
#: Errors that may name folders of the server or videos, and what those are told who are no administrators.
_TOLD_TO_OTHERS: Mapping[type[ReelfindError], str] = {
    DamagedRowsError: "A part of the library is damaged.",
    VectorsAwayError: "The server of the vectors does not answer.",
    StoreAwayError: "The object store of the library does not answer.",
    NotReadyError: "No snapshot is served.",
    SnapshotRefusedError: "The new snapshot is not served; the one before still is.",
    MediaNotAllowedError: "The video's file may not be played.",
    MediaChangedError: "The video's file has changed since it was indexed.",
    MediaGoneError: "The video's file is missing, or cannot be read.",
    JobStoreError: "The jobs cannot be read or written.",
    RightsError: "It cannot be found out who may ask, so nobody may.",
}
_ASK = "The server's log says more under this instance: ask whoever runs the service."
_UNAVAILABLE = ProblemKind(503, "unavailable", "The library or the bundle cannot be read")
_BY_STATUS = {
    404: _BY_ERROR[NotFoundError],
    405: ProblemKind(405, "method-not-allowed", "The method is not allowed here"),
    413: BODY_TOO_LARGE,
    416: ProblemKind(416, "range-not-satisfiable", "The range is outside the file"),
}


def problem_response(
    kind: ProblemKind,
    detail: str,
    *,
    instance: str | None = None,
    errors: Sequence[InvalidValue] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem document as a response. Without `instance`, it gets a new one."""
    return _as_response(_problem(kind, detail, instance, errors), headers)


def _as_response(problem: Problem, headers: Mapping[str, str] | None) -> Response:
    body = problem.model_dump_json(exclude_none=True)
    all_headers = {"cache-control": "no-store", **(headers or {})}
    return Response(body, problem.status, all_headers, media_type=MEDIA_TYPE)


def internal_problem(instance: str) -> Problem:
    """What a part of an answer says that failed by a fault of the program; `instance` is in the log."""
    return _problem(INTERNAL, INTERNAL_DETAIL, instance)


def _problem(
    kind: ProblemKind,
    detail: str,
    instance: str | None = None,
    errors: Sequence[InvalidValue] | None = None,
) -> Problem:
    return Problem(
        type=f"urn:reelfind:problem:{kind.slug}",
        title=kind.title,
        status=kind.status,
        detail=detail,
        instance=instance or new_instance(),
        errors=list(errors) if errors else None,
    )


def new_instance() -> str:
    """A unique name for one occurrence of a problem."""
    return uuid.uuid4().urn


def install_problem_handlers(app: FastAPI) -> None:
    """Answer every error of `app` with a problem document."""
    app.add_exception_handler(ReelfindError, _on_reelfind_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(ClientLeftError, _on_client_left)


async def _on_reelfind_error(request: Request, error: Exception) -> Response:
    return error_response(request.scope, error)


def error_response(scope: MutableMapping[str, Any], error: Exception) -> Response:
    """An error as a problem document. Only administrators are told what may name a folder of the server."""
    headers = None
    if isinstance(error, OverloadedError | TooManyRequestsError | AwayError):
        headers = {"retry-after": str(max(1, math.ceil(error.retry_seconds)))}
    elif isinstance(error, NotLoggedInError):
        headers = {"www-authenticate": 'Bearer realm="Reelfind"'}
    return _as_response(problem_of(error, scope), headers)


def kind_of(error: Exception) -> ProblemKind:
    """The kind of problem that one of our errors is."""
    return next((kind for type_, kind in _BY_ERROR.items() if isinstance(error, type_)), _UNAVAILABLE)


def problem_of(error: Exception, scope: MutableMapping[str, Any]) -> Problem:
    """One of our errors as a problem document; see `error_response`."""
    text = told(error, scope)
    if text is None:
        return _problem(kind_of(error), str(error), errors=_values_of(error))
    return _problem(kind_of(error), f"{text} {_ASK}", instance=_noted(error))


def _noted(error: Exception) -> str:
    """Write an error to the log whose text is not told. → The id that the log has with it."""
    instance = new_instance()
    logger.info("%s (instance %s)", error, instance)
    return instance


def told(error: Exception, scope: MutableMapping[str, Any]) -> str | None:
    """What who sent a request is told of an error, in place of a text that may name a folder of the server.

    None: the text itself, since they are an administrator, or it names none.
    """
    principal = identity_of(scope).principal
    if principal is not None and principal.is_admin:
        return None
    if not any(isinstance(error, type_) for type_ in _BY_ERROR):
        return "The library or the model cannot be read."
    return next((text for type_, text in _TOLD_TO_OTHERS.items() if isinstance(error, type_)), None)


def _values_of(error: Exception) -> list[InvalidValue] | None:
    """The value of a request that an error names, if it names one."""
    if isinstance(error, QueryError) and error.field is not None:
        # A field that begins with ? is a parameter of the address.
        pointer = error.field if error.field.startswith("?") else f"#{error.field}"
        return [InvalidValue(pointer=pointer, detail=str(error))]
    return None


async def _on_client_left(_request: Request, _error: Exception) -> Response:
    return Response(status_code=CLIENT_LEFT)


async def _on_invalid(request: Request, error: Exception) -> Response:
    issues = error.errors() if isinstance(error, RequestValidationError) else []
    body = error.body if isinstance(error, RequestValidationError) else None
    values = [invalid_value(issue, body, _example(request)) for issue in issues]
    return problem_response(INVALID, " ".join(value.detail for value in values), errors=values)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    detail = str(error.detail) if isinstance(error, HTTPException) else ""
    path = shorten(request.url.path)
    if status == 404 and detail == "Not Found":
        detail = f"There is nothing at {path}. /openapi.json lists all paths."
    elif status == 405:
        allowed = headers.get("allow", headers.get("Allow", ""))
        detail = f"{shorten(request.method)} is not allowed at {path}. Use {allowed or 'another method'}."
    elif status == 400:  # from the framework: the body is not UTF-8, or is nested too deeply
        return problem_response(
            INVALID, f"The body cannot be read as JSON in UTF-8. Send {_example(request)}."
        )
    kind = _BY_STATUS.get(status, ProblemKind(status, f"http-{status}", detail))
    return problem_response(kind, detail, headers=headers)


def _example(request: Request) -> str:
    """A body that the route of the request accepts."""
    if request.method == "PATCH":
        return _ANNOTATION_EXAMPLE
    if request.url.path.startswith("/v1/jobs"):
        return _JOB_EXAMPLE
    return _QUESTION_EXAMPLE if request.url.path.endswith("/answer") else _SEARCH_EXAMPLE
