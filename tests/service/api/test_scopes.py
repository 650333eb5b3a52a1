"""Every route states what it needs, and is refused to who lacks it, before the body is read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, NamedTuple

import pytest
from fastapi import APIRouter, Depends
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Mount, Route

from service.api.app import ROUTERS, create_app
from service.api.principal import OpenRule, Principal, Rule, ScopedRoute, require
from service.rights.scopes import INCLUDED, SCOPES, Scope
from service.settings import load_settings
from tests.support.jobs import JOBS
from tests.support.keys import WITH_KEYS, bearer, make_key
from tests.support.paths import ROOT
from tests.support.problems import check_problem
from tests.support.server import Server, running_server
from tests.support.toy_library import ToyLibrary, make_library

#: What is open to everybody, and why.
OPEN_PATHS = {
    "/": "the page, which shows nothing until somebody logs in",
    "/docs": "describes the interface, which is no secret, and nothing of the library",
    "/healthz": "is asked by whatever starts the service",
    "/readyz": "the same; it says no names to strangers",
    "/v1/session": "says who asks, and logs in",
}
#: Routes of the framework: what the API looks like, and the page's own files.
NOT_OURS = {"/openapi.json", "/static"}


class Called(NamedTuple):
    method: str
    path: str
    scope: Scope


NESTED = require("admin")


def helper(principal: Annotated[Principal, Depends(NESTED)]) -> Principal:
    return principal


def remembered(who: Annotated[Principal, Depends(helper)]) -> None:
    """A route whose scope is that of what it depends on."""


ROUTES = [route for router in ROUTERS for route in router.routes]
CALLS = sorted(
    Called(method, route.path.replace("{video_id}", "0" * 32).replace("{frame_id}", "0" * 32), rule.scope)
    for route in ROUTES
    if isinstance(route, ScopedRoute) and isinstance(rule := route.rule, Rule)
    for method in route.methods or ()
)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(tmp_path_factory.mktemp("scopes"), {"red.mp4": [("red", 1.0)]})


@pytest.fixture(scope="module")
def keys(toy: ToyLibrary) -> dict[Scope, str]:
    return {scope: make_key(toy, scope, name=scope) for scope in SCOPES}


@pytest.fixture(scope="module")
def server(toy: ToyLibrary, keys: dict[Scope, str]) -> Iterator[Server]:
    with running_server(*toy.options, *WITH_KEYS, environment=JOBS | {"REELFIND_WRITES": "1"}) as server:
        yield server


def test_every_route_states_its_scope_or_is_open_for_a_reason() -> None:
    assert len(ROUTES) > 10
    for route in ROUTES:
        assert isinstance(route, ScopedRoute), f"{route} needs route_class=ScopedRoute on its router"
        if isinstance(route.rule, OpenRule):
            assert route.path in OPEN_PATHS
    app = create_app(load_settings())
    ours = {id(route) for route in ROUTES}
    others = {path_of(route) for route in app.routes if id(route) not in ours}
    assert others - {None} == NOT_OURS
    assert not any(isinstance(route, APIRoute) for route in app.routes), "a route beside the routers"


def path_of(route: BaseRoute) -> str | None:
    return route.path if isinstance(route, Route | Mount) else None


def test_a_route_without_a_scope_cannot_be_made() -> None:
    router = APIRouter(route_class=ScopedRoute)
    with pytest.raises(TypeError, match=r"/forgotten states no scope: depend on require\(…\) or OPEN"):
        router.get("/forgotten")(lambda: None)
    router.get("/remembered")(remembered)
    (route,) = router.routes
    assert isinstance(route, ScopedRoute)
    assert route.rule == NESTED


@pytest.mark.parametrize(("method", "path", "scope"), CALLS)
def test_nobody_gets_in_without_the_scope(
    server: Server, keys: dict[Scope, str], method: str, path: str, scope: Scope
) -> None:
    """A body that is no JSON would be refused with 422 if anybody looked at it."""
    content = b"{" if method not in ("GET", "HEAD", "DELETE") else None
    headers = {} if content is None else {"Content-Type": "application/json"}
    stranger = server.client.request(method, path, content=content, headers=headers)
    assert stranger.status_code == 401
    assert stranger.headers["www-authenticate"] == 'Bearer realm="Reelfind"'
    for had, key in keys.items():
        response = server.client.request(method, path, content=content, headers={**headers, **bearer(key)})
        if scope in INCLUDED[had]:
            assert response.status_code not in (401, 403), (had, response.text)
        elif method == "HEAD":
            assert response.status_code == 403
        else:
            check_problem(response, 403, f"needs the scope {scope}; yours: {had}")


def test_routes_ask_of_the_library_as_it_is_seen() -> None:
    """What is served goes through `seen`, or a page token's searcher through `seen_by`."""
    allowed = {
        # `checked_search`, and pages, narrow it.
        "search.py": 2,
        "batch.py": 1,
        "questions.py": 2,
        "videos.py": 1,
    }
    for path in sorted((ROOT / "service" / "api" / "routes").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        used = len(re.findall(r"live\.(searcher|read|_searcher)\b", text))
        assert used <= allowed.get(path.name, 0), f"{path.name}: ask `seen(context, principal)`"
        if used:
            assert "principal" in text


def test_what_is_open_needs_no_key(server: Server) -> None:
    for path in (*OPEN_PATHS, "/openapi.json", "/static/app.js"):
        assert server.client.get(path).status_code == 200
    check_problem(server.client.get("/nothing"), 404, "There is nothing at")
