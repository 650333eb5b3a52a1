"""The span of a request, as OpenTelemetry's semantic conventions for HTTP servers say."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from starlette.types import Scope

from model.runtime.tracing import NO_SPAN, Span, is_on, span

_METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"}
)
#: Asked again and again by machines: a trace of each would hide all others.
_UNTRACED = frozenset({"/healthz", "/readyz", "/metrics"})


def request_span(scope: Scope) -> AbstractContextManager[Span]:
    """The span of a request; a `traceparent` among its headers names the span of the client."""
    if not is_on() or scope["path"] in _UNTRACED:
        return NO_SPAN
    return _described(scope)


@contextmanager
def _described(scope: Scope) -> Iterator[Span]:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    method, client, server = scope["method"], scope.get("client"), scope.get("server")
    with span(_method_in_name(scope), "server", headers) as found:
        found.set("http.request.method", method if method in _METHODS else "_OTHER")
        found.set("http.request.method_original", None if method in _METHODS else method)
        found.set("network.protocol.version", scope["http_version"])
        found.set("url.scheme", scope["scheme"])
        # What follows the question mark may be the signature of an address: it is left out.
        found.set("url.path", scope["path"])
        found.set("user_agent.original", headers.get("user-agent"))
        found.set("client.address", client[0] if client else None)
        found.set("server.address", server[0] if server else None)
        found.set("server.port", server[1] if server else None)
        yield found


def describe_answer(found: Span, scope: Scope, route: str | None, status: int) -> None:
    """Set what is known of a request when it was answered.

    Args:
        found: its span.
        scope: the request.
        route: the template of its path; None: it has none.
        status: that of the answer.
    """
    if route is not None:
        found.rename(f"{_method_in_name(scope)} {route}")
        found.set("http.route", route)
    found.set("http.response.status_code", status)
    if status >= 500:
        found.fail(str(status))


def _method_in_name(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method in _METHODS else "HTTP"
