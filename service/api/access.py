"""Which requests are answered: their Host, where they come from, and the kind of their body.

A browser runs the scripts of any site, and sends its cookies along. Three rules keep such a script from using
the service:

- **Host.** A site can let its own name lead to this computer (DNS rebinding); the browser then takes the
  service for a part of that site. So only names of the service are answered. An IP address as Host is safe:
  there is no name that could lead elsewhere.
- **Origin.** A request that another site's page makes is refused, unless the settings list that site.
  Following a link to the service is no such request. A signed address may be read from anywhere. What changes
  something and is known by a cookie alone must say that it comes from the service's own page.
- **Content type.** A body is JSON and says so: what a form of another site can send does not. Searches that
  carry a picture and uploads of videos are excepted: the rule above refuses those of other sites.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import ip_address
from typing import NamedTuple

from starlette.types import Scope

from model.runtime.messages import shorten
from service.api.principal import Via
from service.api.problems import CROSS_ORIGIN, NOT_JSON, UNKNOWN_HOST, ProblemKind
from service.api.uploads import is_upload
from service.api.video_uploads import carries_video
from service.settings import Settings

_AUTHORITY = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9_.-]+))(?::([0-9]{1,5}))?", re.IGNORECASE)
_ORIGIN = re.compile(r"https?://(.+)", re.IGNORECASE)
_JSON = re.compile(rb"\s*application/(?:[a-z0-9!#$&^_.-]+\+)?json\s*(?:;.*)?", re.IGNORECASE)
_DEFAULT_PORTS = ("80", "443")
_READING = frozenset({"GET", "HEAD"})


class Refusal(NamedTuple):
    """Why a request is not answered, and after how many seconds it may be; None: not known."""

    kind: ProblemKind
    detail: str
    wait_seconds: int | None = None


_FORGED = Refusal(
    CROSS_ORIGIN,
    "The request has the cookie of a session, and does not come from the service's own page. Elsewhere, send "
    "a key in the header Authorization: Bearer KEY. If it is the service's own page behind a proxy, let the "
    "proxy pass on the Host (nginx: proxy_set_header Host $http_host).",
)


class Origins(NamedTuple):
    """The headers that tell where a request comes from; None where it has none."""

    hosts: tuple[bytes, ...]
    origins: tuple[bytes, ...]
    site: bytes | None
    mode: bytes | None
    destination: bytes | None
    content_type: bytes | None
    has_body: bool


class AccessRules:
    """The rules, with the names and sites of the settings."""

    def __init__(self, settings: Settings) -> None:
        self._names = frozenset({settings.host.lower(), "localhost", "*.localhost", *settings.allowed_hosts})
        self._sites = frozenset(site.lower().rstrip("/") for site in settings.cors_origins)

    def wrong_host(self, request: Origins) -> Refusal | None:
        """Why a request is for no name of the service; None: it is for one."""
        # Browsers always send a Host; health checks that speak HTTP/1.0 may not.
        if len(request.hosts) < 2 and all(is_known(host, self._names) for host in request.hosts):
            return None
        shown = " and ".join(shorten(host.decode("latin-1")) for host in request.hosts)
        match = _AUTHORITY.fullmatch(request.hosts[0].decode("latin-1"))
        name = match[2].lower().rstrip(".") if match and match[2] else ""
        remedy = (
            f"If this is the service's name, start it with REELFIND_ALLOWED_HOSTS={name} "
            f"(reelfind serve --allowed-hosts {name})."
            if name and len(name) < 254 and len(request.hosts) == 1
            else "Send one Host: an IP address, localhost, or a name that REELFIND_ALLOWED_HOSTS lists."
        )
        return Refusal(
            UNKNOWN_HOST,
            f"The request is for the host {shown}, and this service is not known by that name: another site "
            f"may have let it lead here. {remedy}",
        )

    def refusal(self, request: Origins, scope: Scope, via: Via | None) -> Refusal | None:
        """Why a request is not answered whose Host is right; None: it is.

        Args:
            request: its headers.
            scope: the ASGI scope.
            via: how it says who it is from; None: it does not.
        """
        refused = self._wrong_origin(request, scope["method"], via)
        if refused is not None or is_upload(scope) or carries_video(scope):
            return refused
        return _wrong_body(request, scope["method"])

    def _wrong_origin(self, request: Origins, method: str, via: Via | None) -> Refusal | None:
        origins, site = request.origins, request.site
        if via == "url" and method in _READING:
            return None
        if via == "session" and method not in _READING:
            return None if _is_own_page(request) else _FORGED
        if origins and all(self._is_listed(origin) for origin in origins):
            return None
        if site is not None:
            # Browsers send this header where they trust the connection, and pages cannot change it.
            if site in (b"same-origin", b"none"):
                return None
            if not origins and method in _READING and _is_link(request):
                return None
        elif all(_same(origin, request.hosts) for origin in origins):
            return None
        shown = shorten(origins[0].decode("latin-1")) if origins else "another site"
        return Refusal(
            CROSS_ORIGIN,
            f"The request comes from a page of {shown}, not from this service's own. If that page may use "
            "the service, list its origin in REELFIND_CORS_ORIGINS. If it is the service's own page behind a "
            "proxy, let the proxy pass on the Host (nginx: proxy_set_header Host $http_host).",
        )

    def _is_listed(self, origin: bytes) -> bool:
        return "*" in self._sites or origin.decode("latin-1").lower() in self._sites


def _is_own_page(request: Origins) -> bool:
    """Whether a browser says that a page of the service itself sends a request."""
    if request.site is not None:
        return request.site == b"same-origin"
    return bool(request.origins) and all(_same(origin, request.hosts) for origin in request.origins)


@lru_cache(maxsize=512)
def is_known(host: bytes, names: frozenset[str]) -> bool:
    """Whether a Host header is an IP address or one of `names`, with or without a port."""
    match = _AUTHORITY.fullmatch(host.decode("latin-1"))
    if match is None:
        return False
    name = (match[1] or match[2]).lower().rstrip(".")
    try:
        ip_address(name)
    except ValueError:
        pass
    else:
        return True
    ends = name.split(".")
    return name in names or any("*." + ".".join(ends[start:]) in names for start in range(1, len(ends)))


def read_origins(headers: Sequence[tuple[bytes, bytes]]) -> Origins:
    """The headers of a request that tell where it comes from."""
    hosts: tuple[bytes, ...] = ()
    origins: tuple[bytes, ...] = ()
    site = mode = destination = content_type = None
    has_body = False
    for name, value in headers:
        match name:
            case b"host":
                hosts += (value,)
            case b"origin":
                origins += (value,)
            case b"sec-fetch-site":
                site = value
            case b"sec-fetch-mode":
                mode = value
            case b"sec-fetch-dest":
                destination = value
            case b"content-type":
                # Of several, none may be another: which one counts is up to the reader.
                content_type = (
                    value if content_type is None or _JSON.fullmatch(content_type) else content_type
                )
            case b"content-length":
                has_body = has_body or value.strip(b"0") != b""
            case b"transfer-encoding":
                has_body = True
    return Origins(hosts, origins, site, mode, destination, content_type, has_body)


def _is_link(request: Origins) -> bool:
    """Whether a browser opens the address as a page of its own: no other page reads the answer."""
    return request.mode == b"navigate" and request.destination == b"document"


def _same(origin: bytes, hosts: tuple[bytes, ...]) -> bool:
    """Whether an origin has the request's host and port. A proxy may add TLS: the scheme does not count."""
    match = _ORIGIN.fullmatch(origin.decode("latin-1"))
    return match is not None and len(hosts) == 1 and _place(match[1]) == _place(hosts[0].decode("latin-1"))


def _place(authority: str) -> tuple[str, str] | None:
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        return None
    port = match[3] or ""
    return (match[1] or match[2]).lower(), "" if port in _DEFAULT_PORTS else port


def _wrong_body(request: Origins, method: str) -> Refusal | None:
    if method in _READING or method == "OPTIONS":
        return None
    if request.content_type is None:
        if not request.has_body:
            return None
    elif _JSON.fullmatch(request.content_type):
        return None
    shown = "nothing" if request.content_type is None else shorten(request.content_type.decode("latin-1"))
    return Refusal(
        NOT_JSON,
        f"The body is not declared as JSON but as {shown}. Send it with the header Content-Type: "
        "application/json.",
    )
