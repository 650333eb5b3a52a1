"""Says who sent a request: by its key, the cookie of its session, its signed address, or a proxy's header."""

import ipaddress
import secrets
import time
from collections.abc import MutableMapping
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.parse import urlencode

from model.runtime.messages import shorten
from service.api.connections import address_of, client_of, peer_of
from service.api.presented_keys import PresentedKeys, principal_of
from service.api.principal import Identity, Principal
from service.api.rate_limits import RateLimit
from service.api.sessions import Session, new_session, read_session, session_cookies, write_session
from service.api.signed_urls import Parameters, SignedUrl, sign_url, signed_url_of
from service.errors import NoLogInError, NotLoggedInError, NotPermittedError, RightsError
from service.rights.scopes import SCOPES, with_included
from service.rights.store import AccessStore
from service.rights.users import UserFile
from service.settings import Settings

#: What the holder of a signed address may do, at most.
_URL_SCOPES = with_included(["media"])
_LONGEST_NAME = 200
_EVERYBODY = Principal("everybody", frozenset(SCOPES))
_NO_KEY = (
    "This needs a key. Log in on the page, or send the key in the header `Authorization: Bearer KEY`. "
    "An administrator makes one with `reelfind keys create --scope search`."
)

Scope = MutableMapping[str, Any]


class Authentication:
    """What the settings say of who may ask. Its methods belong to one event loop."""

    def __init__(self, settings: Settings) -> None:
        """Open the keys, or read the users, that the settings ask for.

        Raises:
            InputError: the state folder cannot be used.
            RightsError: keys or users cannot be read.
        """
        self.mode = settings.auth
        self._session_seconds = settings.session_hours * 3600
        self._store: AccessStore | None = None
        self._presented: PresentedKeys | None = None
        self._proxy: _Proxy | None = None
        self._secret_without_store = secrets.token_bytes(32)
        if self.mode != "none":
            self._store = AccessStore(settings.state_folder)
        if self.mode == "keys" and self._store is not None:
            self._presented = PresentedKeys(self._store, RateLimit(settings.failure_rate_limit))
        if self.mode == "proxy" and settings.auth_users is not None:
            self._proxy = _Proxy(settings, UserFile(settings.auth_users))

    def close(self) -> None:
        """Close the file of keys."""
        if self._store is not None:
            self._store.close()

    async def identify(self, scope: Scope) -> Identity:
        """Who sent a request over HTTP. What is wrong is the `problem` of the identity, not raised."""
        try:
            url = signed_url_of(scope) if scope["method"] in ("GET", "HEAD") else None
        except ValueError:
            problem = NotPermittedError("The signed address is malformed: ask for a new one.")
            return Identity(via="url", problem=problem, suspicion="a malformed signed address")
        try:
            if url is not None:
                # The route reads what was signed.
                scope["query_string"] = urlencode(url.parameters).encode()
                return self._by_url(url)
            if self._proxy is not None:
                return self._proxy.identify(scope)
            if self._store is None or self._presented is None:
                return Identity(_EVERYBODY, "none")
            credentials = _read(scope)
            if len(set(credentials.keys)) > 1:
                return Identity(problem=NotLoggedInError("The request has two different keys. Send one."))
            if credentials.keys:
                return await self._presented.identify(credentials.keys[0], client_of(scope))
            return _by_session(credentials.cookies, self._store)
        except RightsError as error:
            return Identity(problem=error)

    async def log_in(self, text: str, address: str) -> tuple[Identity, Session, str]:
        """Begin a session with a key. → Who it is, the session, and the value of its cookie.

        Raises:
            NoLogInError: the service has no log-in.
            NotLoggedInError: the key does not count.
            TooManyRequestsError: too many wrong keys came from this address.
            RightsError: the keys cannot be read.
        """
        if self._presented is None:
            why = "everybody may ask" if self.mode == "none" else "its proxy says who asks"
            raise NoLogInError(f"There is no log-in: {why}. REELFIND_AUTH=keys asks for keys.")
        identity = await self._presented.identify(text, address)
        principal = identity.principal
        if principal is None or principal.key_id is None:
            raise identity.problem
        expires_at = time.time() + self._session_seconds
        if principal.expires_at is not None:
            expires_at = min(expires_at, principal.expires_at)
        session = new_session(principal.key_id, expires_at)
        cookie = write_session(session, self._secret())
        begun = Identity(replace(principal, expires_at=expires_at), "session", session_id=session.session_id)
        return begun, session, cookie

    def log_out(self, identity: Identity) -> None:
        """End the session of a request, if it has one.

        Raises:
            RightsError: the file cannot be written.
        """
        principal = identity.principal
        if self._store is not None and identity.session_id is not None and principal is not None:
            self._store.end_session(identity.session_id, principal.expires_at or 0.0)

    def sign(self, path: str, parameters: Parameters, principal: Principal, expires_at: int) -> SignedUrl:
        """Sign an address for a principal.

        Raises:
            RightsError: the secret cannot be read.
        """
        by = "none"
        if self.mode != "none":
            by = f"user:{principal.name}" if principal.key_id is None else f"key:{principal.key_id}"
        return sign_url(path, parameters, by, expires_at, self._secret())

    def _secret(self) -> bytes:
        if self._store is None:
            return self._secret_without_store
        secret = self._store.secret()
        if not secret:
            raise RightsError(f"{self._store.path} is missing: restore it, or start the service again")
        return secret

    def _by_url(self, url: SignedUrl) -> Identity:
        refused = NotPermittedError("The address has expired, or was changed: ask for a new one.")
        if not url.is_genuine(self._secret()):
            return Identity(via="url", problem=refused, suspicion="a signed address that was changed")
        if url.has_expired:
            return Identity(via="url", problem=refused)
        principal = self._signer(url)
        if principal is None:
            return Identity(
                via="url", problem=refused, suspicion="a signed address of somebody who has no rights now"
            )
        scopes = principal.scopes & _URL_SCOPES
        return Identity(replace(principal, scopes=scopes, expires_at=url.expires_at), "url")

    def _signer(self, url: SignedUrl) -> Principal | None:
        """Who asked for a signed address, with the rights that they have now; None: they have none."""
        kind, _, name = url.by.partition(":")
        if kind == "key" and self._store is not None:
            key = self._store.find(name)
            return None if key is None or key.why_invalid is not None else principal_of(key)
        if kind == "user" and self._proxy is not None:
            return self._proxy.principal(name)
        return _EVERYBODY if kind == self.mode == "none" else None


class _Proxy:
    """A proxy in front of the service that names the user of each request in a header."""

    def __init__(self, settings: Settings, users: UserFile) -> None:
        self._header = settings.auth_header
        self._networks = [ipaddress.ip_network(proxy) for proxy in settings.auth_proxies]
        self._users = users

    def identify(self, scope: Scope) -> Identity:
        """Who sent a request. RightsError when the users cannot be read."""
        own = self._header.encode()
        values = [value for name, value in scope["headers"] if name == own]
        peer = peer_of(scope)
        if not self._is_proxy(peer):
            if not values:
                problem = NotLoggedInError("The service answers through its proxy, which asks who you are.")
                return Identity(problem=problem)
            return Identity(
                problem=NotPermittedError(
                    f"The header {self._header} comes from an address that is not one of the proxies in "
                    "REELFIND_AUTH_PROXIES. Ask through the proxy, and without this header."
                ),
                is_fatal=True,
                suspicion=f"the header {self._header} from {peer[:60]}, which is no trusted proxy",
            )
        name = _name(values)
        if name is None:
            return Identity(
                problem=NotLoggedInError(
                    f"The proxy does not say who you are: it must send the header {self._header} once, with "
                    f"a name of at most {_LONGEST_NAME} characters."
                )
            )
        principal = self.principal(name)
        if principal is None:
            return Identity(
                problem=NotPermittedError(
                    f"The user {shorten(name)} may do nothing here. An administrator can add them to the "
                    "file in REELFIND_AUTH_USERS."
                ),
                suspicion=f"the user {shorten(name)}, who has no rights",
            )
        return Identity(principal, "proxy")

    def principal(self, name: str) -> Principal | None:
        """A user, with the rights that they have now; None: none. RightsError when they cannot be read."""
        rights = self._users.rights_of(name)
        return None if rights is None else Principal(name, with_included(rights.scopes), rights.folder)

    def _is_proxy(self, peer: str) -> bool:
        address = address_of(peer)
        return address is not None and any(address in network for network in self._networks)


class _Credentials(NamedTuple):
    """What a request has to say who it is from."""

    keys: list[str]
    cookies: list[str]


def _read(scope: Scope) -> _Credentials:
    keys, cookies = [], []
    for name, value in scope["headers"]:
        if name == b"authorization":
            kind, _, key = value.partition(b" ")
            # Other kinds are for a proxy, which may pass them on.
            if kind.lower() == b"bearer":
                keys.append(key.strip().decode("latin-1"))
        elif name == b"x-api-key":
            keys.append(value.strip().decode("latin-1"))
        elif name == b"cookie":
            cookies.append(value.decode("latin-1"))
    return _Credentials(keys, cookies)


def _by_session(cookies: list[str], store: AccessStore) -> Identity:
    """Who sent a request with these Cookie headers. RightsError when the keys cannot be read."""
    values = [value for header in cookies for value in session_cookies(header)]
    secret = store.secret() if values else b""
    session = read_session(values[0], secret) if secret else None
    if session is None:
        return Identity(problem=NotLoggedInError(_NO_KEY))
    key = store.find(session.key_id)
    if key is None or key.why_invalid is not None or store.has_ended(session.session_id):
        return Identity(problem=NotLoggedInError(f"Your session has ended. {_NO_KEY}"))
    principal = replace(principal_of(key), expires_at=session.expires_at)
    return Identity(principal, "session", session_id=session.session_id)


def _name(values: list[bytes]) -> str | None:
    """The name in a proxy's header; None: there is not exactly one, or it is no name."""
    if len(values) != 1:
        return None
    try:
        name = values[0].decode("utf-8").strip()
    except UnicodeDecodeError:
        return None
    return name if 0 < len(name) <= _LONGEST_NAME and name.isprintable() else None
