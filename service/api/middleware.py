"""Wraps every request: who may ask, limits, security headers, unexpected errors, metrics, logs.

It is one plain ASGI class, because every layer around a request adds to the time of a search.
"""

import logging
import time

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model.runtime.tracing import Span
from service.api.access import AccessRules, Refusal, read_origins
from service.api.audit_trail import AuditTrail
from service.api.authentication import Authentication
from service.api.body_limits import BodyLimits
from service.api.connections import address_of, client_of
from service.api.presence import CLIENT_LEFT
from service.api.principal import Identity, identity_of, set_identity
from service.api.problems import (
    BODY_TOO_LARGE,
    CROSS_ORIGIN,
    INTERNAL,
    INTERNAL_DETAIL,
    TOO_MANY_REQUESTS,
    error_response,
    new_instance,
    problem_response,
)
from service.api.rate_limits import RateLimit
from service.api.request_span import describe_answer, request_span
from service.metrics import Metrics
from service.settings import Settings

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
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)
# No other site may embed an answer. A page that the settings allow asks by CORS, which needs no more. A
# signed address is made for other sites.
_EMBEDDING = b"cross-origin-resource-policy"
_OWN_PAGES, _ANY_PAGE = (_EMBEDDING, b"same-origin"), (_EMBEDDING, b"cross-origin")
# What depends on who asks is for nobody else, also where a proxy stores answers.
_NOT_STORED = (b"cache-control", b"no-store")


class RateLimits:
    """How often an address may ask, and a key or user."""

    def __init__(self, settings: Settings) -> None:
        self._of_address = RateLimit(settings.address_rate_limit)
        self._of_principal = RateLimit(settings.rate_limit)
        self._frees_this_computer = settings.auth == "none"

    def address_wait(self, scope: Scope) -> int | None:
        """Count a request for its address. → Seconds that it must wait; None: it need not."""
        if self._frees_this_computer and _is_this_computer(scope):
            return None
        return self._of_address.count(client_of(scope))

    def principal_wait(self, identity: Identity) -> int | None:
        """Count a request for who sent it. → Seconds that it must wait; None: it need not."""
        principal = identity.principal
        if principal is None or identity.via == "none":
            return None
        return self._of_principal.count(principal.key_id or f"user {principal.name}")


class Envelope:
    """The ASGI middleware around all routes."""

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        authentication: Authentication,
        audit: AuditTrail,
        metrics: Metrics,
    ) -> None:
        self._app = app
        self._rules = AccessRules(settings)
        self._limits = RateLimits(settings)
        self._authentication = authentication
        self._audit = audit
        self._metrics = metrics
        self._body_limits = BodyLimits(settings)
        self._access_log = settings.access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with request_span(scope) as span:
            await self._answer(scope, receive, send, span)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, span: Span) -> None:
        started = time.perf_counter()
        status = 0
        received = 0
        most = self._body_limits.of(scope)
        too_large = f"The body is larger than the limit of {most:,} bytes. Send less."
        refused: Refusal | None = None

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
                message["headers"] = [*message.get("headers", ()), *_added(scope, message)]
            await send(message)

        try:
            refused = await self._refusal(scope)
            identity = identity_of(scope)
            if refused is not None:
                # The body is not read.
                headers = {"connection": "close"}
                if refused.wait_seconds is not None:
                    headers["retry-after"] = str(refused.wait_seconds)
                answer = problem_response(refused.kind, refused.detail, headers=headers)
                await answer(scope, receive, observed_send)
            elif identity.is_fatal:
                await error_response(scope, identity.problem)(scope, receive, observed_send)
            elif _declared_length(scope) > most:
                # Closing the connection spares reading the body.
                answer = problem_response(BODY_TOO_LARGE, too_large, headers={"connection": "close"})
                await answer(scope, receive, observed_send)
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
            self._metrics.observe_request(scope["method"], _route(scope) or "unmatched", status, seconds)
            describe_answer(span, scope, _route(scope), status)
            is_forged = refused is not None and refused.kind is CROSS_ORIGIN
            is_forged = is_forged and identity_of(scope).via == "session"
            self._audit.note(scope, status, refused.kind.title if refused and is_forged else None)
            if self._access_log:
                access_logger.info(
                    "%s %s %d %.1f ms", scope["method"], _shown_path(scope), status, seconds * 1000
                )

    async def _refusal(self, scope: Scope) -> Refusal | None:
        """Why a request is not answered, whatever it asks for; None: it is. Notes who sent it."""
        origins = read_origins(scope["headers"])
        refused = self._rules.wrong_host(origins)
        if refused is not None:
            return refused
        wait = self._limits.address_wait(scope)
        if wait is not None:
            return _too_many("your address", wait)
        identity = await self._authentication.identify(scope)
        set_identity(scope, identity)
        refused = self._rules.refusal(origins, scope, identity.via)
        if refused is not None:
            return refused
        wait = self._limits.principal_wait(identity)
        return None if wait is None else _too_many("you", wait)


def _too_many(who: str, seconds: int) -> Refusal:
    detail = f"Too many requests came from {who}. Try again in {seconds} s."
    return Refusal(TOO_MANY_REQUESTS, detail, seconds)


def _added(scope: Scope, answer: Message) -> list[tuple[bytes, bytes]]:
    """The headers that every answer gets."""
    is_signed = identity_of(scope).via == "url"
    added = [*SECURITY_HEADERS, _ANY_PAGE if is_signed else _OWN_PAGES]
    if not any(name.lower() == _NOT_STORED[0] for name, _ in answer.get("headers", ())):
        added.append(_NOT_STORED)
    return added


def _is_this_computer(scope: Scope) -> bool:
    client = scope.get("client")
    address = address_of(client[0]) if client else None
    return address is not None and address.is_loopback


def _declared_length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


def _route(scope: Scope) -> str | None:
    """The template of the route's path: callers must not be able to add labels to the metrics.

    None: no route has the path.
    """
    template = getattr(scope.get("route"), "path", None)
    if isinstance(template, str):
        return template
    return "/static" if scope["path"].startswith("/static/") else None


def _shown_path(scope: Scope) -> str:
    """The path as it was sent, percent-encoded, so that it cannot break a log line."""
    raw: bytes = scope.get("raw_path") or b"?"
    return raw[:200].decode("ascii", "backslashreplace")
