"""Who asks, and what a route needs.

A route states its scope with a dependency. Its router uses `ScopedRoute`, which checks the scope before the
body is read:

    router = APIRouter(route_class=ScopedRoute)

    @router.get("/v1/videos")
    def list_videos(principal: SearchPrincipal) -> VideoList: ...

    @router.get("/healthz", dependencies=[Depends(OPEN)])
    async def healthz() -> Health: ...
"""

from collections.abc import Callable, Coroutine, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from fastapi import Depends, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from model.runtime.errors import ReelfindError
from service.errors import NotLoggedInError, NotPermittedError
from service.rights.folders import Folder
from service.rights.scopes import Scope, smallest
from service.search.views import View

#: How a request says who it is from: not at all, by a key, the cookie of a session, a signed address, or the
#: header of a proxy.
Via = Literal["none", "key", "session", "url", "proxy"]

_IDENTITY = "reelfind.identity"
_ACTION = "reelfind.action"
_REFUSED = "reelfind.refused"


@dataclass(frozen=True)
class Principal:
    """Somebody whose request is let in.

    Attributes:
        name: the name of the key or the user, for people.
        scopes: what it may do, with what its scopes include.
        folder: the folder that it is limited to; None: the whole library.
        key_id: the id of its key; None: it has none.
        expires_at: when its key or session ends, in seconds since 1970; None: never.
    """

    name: str
    scopes: frozenset[Scope]
    folder: Folder | None = None
    key_id: str | None = None
    expires_at: float | None = None

    @property
    def is_admin(self) -> bool:
        """Whether it may do everything, and see the server's own paths and errors."""
        return "admin" in self.scopes

    @property
    def view(self) -> View:
        """What of the library it sees, and how paths look to it."""
        return View(None if self.folder is None else self.folder.path, whole_paths=self.is_admin)


@dataclass(frozen=True)
class Identity:
    """What is known of who sent a request.

    Attributes:
        principal: who it is; None: not known, or nobody who is let in.
        via: how the request said so.
        problem: why there is no principal: the answer of every route that is not open.
        session_id: the session of its cookie.
        is_fatal: whether even open routes answer with the problem.
        suspicion: why the request is to be noted in the audit log; None: it is not.
    """

    principal: Principal | None = None
    via: Via | None = None
    problem: ReelfindError = field(default_factory=lambda: NotLoggedInError("The service does not know you."))
    session_id: str | None = None
    is_fatal: bool = False
    suspicion: str | None = None


def identity_of(scope: MutableMapping[str, Any]) -> Identity:
    """Who sent a request, as far as is known."""
    identity = scope.get(_IDENTITY)
    return identity if isinstance(identity, Identity) else Identity()


def set_identity(scope: MutableMapping[str, Any], identity: Identity) -> None:
    """Note who sent a request."""
    scope[_IDENTITY] = identity


def action_of(scope: MutableMapping[str, Any]) -> str | None:
    """What a request was to change, for the audit log; None: nothing."""
    return scope.get(_ACTION)


def refusal_of(scope: MutableMapping[str, Any]) -> str | None:
    """Why a route refused who asked; None: it did not."""
    return scope.get(_REFUSED)


@dataclass(frozen=True)
class Rule:
    """What a route needs. As a dependency it gives the principal.

    Attributes:
        scope: the scope that is needed.
        action: what the route changes, such as `library.reload`: the audit log gets a line; None: nothing.
        is_signable: whether `POST /v1/signed-urls` gives out addresses of the route.
    """

    scope: Scope
    action: str | None = None
    is_signable: bool = False

    def check(self, request: Request) -> Principal:
        """The principal of a request.

        Raises:
            ReelfindError: why it is not let in.
        """
        if self.action is not None:
            request.scope[_ACTION] = self.action
        identity = identity_of(request.scope)
        principal = identity.principal
        if principal is None:
            raise identity.problem
        if self.scope not in principal.scopes:
            had = ", ".join(smallest(principal.scopes)) or "none"
            request.scope[_REFUSED] = f"needs the scope {self.scope}"
            raise NotPermittedError(
                f"This needs the scope {self.scope}; yours: {had}. An administrator can make a key with it: "
                f"`reelfind keys create --scope {self.scope}`."
            )
        return principal

    async def __call__(self, request: Request) -> Principal:
        """As `check`."""
        return self.check(request)


@dataclass(frozen=True)
class OpenRule:
    """The rule of a route that is open to everybody; for `action` see `Rule`."""

    action: str | None = None

    def check(self, request: Request) -> None:
        """Let every request in."""
        if self.action is not None:
            request.scope[_ACTION] = self.action

    async def __call__(self, request: Request) -> None:
        """As `check`."""
        self.check(request)


OPEN = OpenRule()

#: How OpenAPI describes the ways to say who asks.
SECURITY_SCHEMES: Mapping[str, Mapping[str, str]] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key of `reelfind keys create`."},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same."},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "reelfind_session",
        "description": "The session of a browser; with TLS the cookie is `__Host-reelfind_session`.",
    },
}


def require(scope: Scope, *, action: str | None = None, signable: bool = False) -> Rule:
    """The rule of a route that needs a scope: see `Rule`."""
    return Rule(scope, action, signable)


#: Whoever asks, who must have the scope `search`.
SearchPrincipal = Annotated[Principal, Depends(require("search"))]


def rule_of(dependant: Dependant) -> Rule | OpenRule | None:
    """The rule among the dependencies of a route; None: it states none."""
    for dependency in dependant.dependencies:
        if isinstance(dependency.call, Rule | OpenRule):
            return dependency.call
        found = rule_of(dependency)
        if found is not None:
            return found
    return None


class ScopedRoute(APIRoute):
    """A route that checks who asks before it reads the body, and says in OpenAPI what it needs."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        rule = self.rule
        schemes: list[dict[str, list[str]]] = []
        if isinstance(rule, Rule):
            schemes = [{name: []} for name in SECURITY_SCHEMES]
            self.description = f"{self.description}\n\nNeeds the scope `{rule.scope}`."
        self.openapi_extra = {**(self.openapi_extra or {}), "security": schemes}

    @property
    def rule(self) -> Rule | OpenRule:
        """What the route needs.

        Raises:
            TypeError: it does not say.
        """
        rule = rule_of(self.dependant)
        if rule is None:
            raise TypeError(f"{self.path} states no scope: depend on require(…) or OPEN")
        return rule

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler that the framework calls with each request."""
        rule, handle = self.rule, super().get_route_handler()

        async def check_and_handle(request: Request) -> Response:
            rule.check(request)
            return await handle(request)

        return check_and_handle
