"""Wraps every request: who may ask, body limit, security headers, unexpected errors, metrics, access log.

It is one plain ASGI class, because every layer around a request adds to the time of a search.
"""

import logging
import time

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.access import AccessRules
from service.api.body_limits import BodyLimits
from service.api.presence import CLIENT_LEFT
from service.api.problems import (
    BODY_TOO_LARGE,
    INTERNAL,
    INTERNAL_DETAIL,
    new_instance,
    problem_response,
)
from service.metrics import Metrics

logger = logging.getLogger("reelfind")
access_logger = logging.getLogger("reelfind.access")

_CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data:; media-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
SECURITY_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"content-security-policy", _CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    # No other site may embed an answer. A page that the settings allow asks by CORS, which needs no more.
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)


class Envelope:
    """The ASGI middleware around all routes."""

    def __init__(
        self, app: ASGIApp, rules: AccessRules, metrics: Metrics, limits: BodyLimits, access_log: bool
    ) -> None:
        self._app = app
        self._rules = rules
        self._metrics = metrics
        self._limits = limits
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 0
        received = 0
        most = self._limits.of(scope)
        too_large = f"The body is larger than the limit of {most:,} bytes. Send less."

        async def limited_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                raise HTTPException(413, too_large, {"connection": "close"})
            return message

        async def observed_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *SECURITY_HEADERS]
            await send(message)

        try:
            refused = self._rules.refusal(scope)
            if refused is not None:
                # The body is not read.
                refusal = problem_response(refused.kind, refused.detail, headers={"connection": "close"})
                await refusal(scope, receive, observed_send)
            elif _declared_length(scope) > most:
                # Closing the connection spares reading the body.
                refusal = problem_response(BODY_TOO_LARGE, too_large, headers={"connection": "close"})
                await refusal(scope, receive, observed_send)
            else:
                await self._app(scope, limited_receive, observed_send)
        except Exception:
            instance = new_instance()
            logger.exception("%s %s failed, instance %s", scope["method"], _shown_path(scope), instance)
            if status:  # the answer has begun: only closing the connection tells the client
                raise
            response = problem_response(INTERNAL, INTERNAL_DETAIL, instance=instance)
            await response(scope, receive, observed_send)
        finally:
            seconds = time.perf_counter() - started
            status = status or CLIENT_LEFT
            self._metrics.observe_request(scope["method"], _route(scope), status, seconds)
            if self._access_log:
                access_logger.info(
                    "%s %s %d %.1f ms", scope["method"], _shown_path(scope), status, seconds * 1000
                )


def _declared_length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


def _route(scope: Scope) -> str:
    """The template of the route's path: callers must not be able to add labels to the metrics."""
    template = getattr(scope.get("route"), "path", None)
    if isinstance(template, str):
        return template
    return "/static" if scope["path"].startswith("/static/") else "unmatched"


def _shown_path(scope: Scope) -> str:
    """The path as it was sent, percent-encoded, so that it cannot break a log line."""
    raw: bytes = scope.get("raw_path") or b"?"
    return raw[:200].decode("ascii", "backslashreplace")
