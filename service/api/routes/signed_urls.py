"""POST /v1/signed-urls: addresses that may be read without a key, for a while."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import parse_qsl, unquote, urlsplit

from fastapi import APIRouter, Depends
from starlette.routing import Match

from model.runtime.messages import shorten
from service.api.context import ContextDep
from service.api.openapi_errors import error_responses
from service.api.principal import Principal, Rule, ScopedRoute, require
from service.api.routes import frames, playback, videos
from service.api.schemas import SignedUrlAnswer, SignedUrlRequest
from service.api.signed_urls import OWN_PARAMETERS, Parameters
from service.errors import NotPermittedError, QueryError

router = APIRouter(tags=["session"], route_class=ScopedRoute)

#: The routers whose routes may be signable.
_ROUTERS: Sequence[APIRouter] = (videos.router, playback.router, frames.router)
_EXAMPLE = "/v1/videos/0f3a9c52d1e8b7640f3a9c52d1e8b764/media"


@router.post(
    "/v1/signed-urls",
    operation_id="signUrl",
    summary="Sign an address",
    responses=error_responses(413, 415, 422, 503),
)
async def sign_url(
    body: SignedUrlRequest,
    context: ContextDep,
    principal: Annotated[Principal, Depends(require("media", action="url.sign"))],
) -> SignedUrlAnswer:
    """Give out an address that anybody may read until it expires, for players and pages elsewhere.

    Whether there is something at the address is not looked up. It counts only as long as the key does with
    which it was asked for, and shows no more than that key may see.
    """
    path, parameters = _parse(body.url)
    rule = _rule_at(path)
    if rule is None:
        raise QueryError(f"url {shorten(body.url)} cannot be signed. Send one such as {_EXAMPLE}.", "/url")
    if rule.scope not in principal.scopes:
        raise NotPermittedError(f"This address needs the scope {rule.scope}.")
    most = context.settings.signed_url_hours * 3600
    if body.expires_seconds > most:
        raise QueryError(
            f"expires_seconds {body.expires_seconds} is above the server's maximum. Send at most {most:.0f}.",
            "/expires_seconds",
        )
    expires_at = int(time.time()) + body.expires_seconds
    signed = context.authentication.sign(path, parameters, principal, expires_at)
    return SignedUrlAnswer(url=str(signed), expires_at=datetime.fromtimestamp(expires_at, UTC))


def _parse(url: str) -> tuple[str, Parameters]:
    """The decoded path of an address, and the parameters of its query.

    Raises:
        QueryError: it is no path of the service.
    """
    try:
        parts = urlsplit(url)
        path = unquote(parts.path, errors="strict")
        parameters = (
            parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True) if parts.query else []
        )
        is_own = not (parts.scheme or parts.netloc or parts.fragment) and path.startswith("/")
    except ValueError:
        is_own = False
    if not is_own or any(name in OWN_PARAMETERS for name, _ in parameters):
        raise QueryError(
            f"url {shorten(url)} is no path of this service. Send path and query, such as {_EXAMPLE}.", "/url"
        )
    return path, parameters


def _rule_at(path: str) -> Rule | None:
    """The rule of the signable route at a path; None: there is none."""
    scope = {"type": "http", "method": "GET", "path": path, "root_path": "", "headers": []}
    for router in _ROUTERS:
        for route in router.routes:
            rule = route.rule if isinstance(route, ScopedRoute) else None
            if isinstance(rule, Rule) and rule.is_signable and route.matches(scope)[0] is Match.FULL:
                return rule
    return None
