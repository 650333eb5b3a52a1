"""/v1/session: who asks, and logging a browser in and out."""

import time
from datetime import UTC, datetime
from pathlib import Path

from fastapi import APIRouter, Depends, Request, Response
from starlette.concurrency import run_in_threadpool

from indexer.library.records import displayable
from service.api.connections import client_of
from service.api.context import Context, ContextDep
from service.api.openapi_errors import error_responses
from service.api.principal import OPEN, Identity, OpenRule, ScopedRoute, identity_of, set_identity
from service.api.schemas import LogIn, SessionInfo
from service.api.sessions import remove_cookies, set_cookie

router = APIRouter(tags=["session"], route_class=ScopedRoute)


@router.get(
    "/v1/session",
    operation_id="getSession",
    summary="Who asks",
    responses=error_responses(),
    dependencies=[Depends(OPEN)],
)
async def get_session(request: Request, context: ContextDep) -> SessionInfo:
    """Who the service takes the request to be from, and what they may do. Answers everybody."""
    return _info(context, identity_of(request.scope))


@router.post(
    "/v1/session",
    operation_id="logIn",
    summary="Log in with a key",
    responses=error_responses(409, 413, 415, 422, 503, meanings={409: "The service has no log-in."}),
    dependencies=[Depends(OpenRule("session.create"))],
)
async def log_in(body: LogIn, request: Request, response: Response, context: ContextDep) -> SessionInfo:
    """Begin a session: the answer sets a cookie that scripts cannot read. It ends with its key, or before."""
    identity, session, cookie = await context.authentication.log_in(
        body.key.strip(), client_of(request.scope)
    )
    set_identity(request.scope, identity)
    seconds = session.expires_at - time.time()
    response.headers.append("set-cookie", set_cookie(cookie, seconds, secure=_is_encrypted(request)))
    return _info(context, identity)


@router.delete(
    "/v1/session",
    operation_id="logOut",
    summary="Log out",
    status_code=204,
    responses=error_responses(503),
    dependencies=[Depends(OpenRule("session.end"))],
)
async def log_out(request: Request, context: ContextDep) -> Response:
    """End the session, if there is one: copies of its cookie do not count any more either."""
    await run_in_threadpool(context.authentication.log_out, identity_of(request.scope))
    response = Response(status_code=204)
    for cookie in remove_cookies():
        response.headers.append("set-cookie", cookie)
    return response


def _info(context: Context, identity: Identity) -> SessionInfo:
    principal = identity.principal
    auth = context.authentication.mode
    if principal is None:
        return SessionInfo(auth=auth, via=None, name=None, scopes=[], folder=None, expires_at=None)
    ends = principal.expires_at
    return SessionInfo(
        auth=auth,
        via=identity.via,
        name=principal.name,
        scopes=sorted(principal.scopes),
        folder=None if principal.folder is None else displayable(Path(principal.folder.path.name or "root")),
        expires_at=None if ends is None else datetime.fromtimestamp(ends, UTC),
    )


def _is_encrypted(request: Request) -> bool:
    """Whether the browser uses TLS, as far as a proxy or the browser says."""
    return request.url.scheme == "https" or request.headers.get("origin", "").startswith("https://")
