"""Sessions of browsers: a signed cookie that names a key, and when it ends.

The cookie cannot be read by scripts, and no other site's page sends it. It counts as long as its key does: a
session ends when the key is revoked. Logging out notes its id, so a copy of the cookie does not count either.
"""

import hashlib
import secrets
import time
from dataclasses import dataclass
from functools import lru_cache
from http.cookies import SimpleCookie

from itsdangerous import BadData, URLSafeSerializer
from starlette.requests import cookie_parser

#: With TLS the name has a prefix, with which browsers take the cookie from this very host alone.
PLAIN_COOKIE, SECURE_COOKIE = "reelfind_session", "__Host-reelfind_session"


@dataclass(frozen=True)
class Session:
    """A session: its id, the id of its key, and when it ends, in seconds since 1970."""

    session_id: str
    key_id: str
    expires_at: float


def new_session(key_id: str, expires_at: float) -> Session:
    """A new session of a key."""
    return Session(secrets.token_urlsafe(16), key_id, expires_at)


def write_session(session: Session, secret: bytes) -> str:
    """The value of a session's cookie."""
    text = _serializer(secret).dumps([session.session_id, session.key_id, session.expires_at])
    return text if isinstance(text, str) else text.decode()


def read_session(text: str, secret: bytes) -> Session | None:
    """The session of a cookie; None: it was not signed with this secret, or has ended by itself."""
    try:
        session_id, key_id, expires_at = _serializer(secret).loads(text)
        session = Session(str(session_id), str(key_id), float(expires_at))
    except (BadData, ValueError, TypeError):
        return None
    return session if session.expires_at > time.time() else None


def session_cookies(header: str) -> list[str]:
    """The values of session cookies in a Cookie header, the safer one first."""
    cookies = cookie_parser(header)
    return [cookies[name] for name in (SECURE_COOKIE, PLAIN_COOKIE) if name in cookies]


def set_cookie(value: str, seconds: float, *, secure: bool) -> str:
    """The Set-Cookie header for a session that lasts so long."""
    return _cookie(SECURE_COOKIE if secure else PLAIN_COOKIE, value, max(0, int(seconds)), secure=secure)


def remove_cookies() -> list[str]:
    """The Set-Cookie headers that remove a session's cookie, whatever its name."""
    return [_cookie(SECURE_COOKIE, "", 0, secure=True), _cookie(PLAIN_COOKIE, "", 0, secure=False)]


def _cookie(name: str, value: str, seconds: int, *, secure: bool) -> str:
    cookie: SimpleCookie = SimpleCookie()
    cookie[name] = value
    morsel = cookie[name]
    morsel["path"] = "/"
    morsel["max-age"] = seconds
    morsel["httponly"] = True
    morsel["samesite"] = "Strict"
    morsel["secure"] = secure
    return morsel.OutputString()


@lru_cache(maxsize=4)
def _serializer(secret: bytes) -> URLSafeSerializer:
    if not secret:
        raise ValueError("no secret to sign with")
    options = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
    return URLSafeSerializer(secret, salt="reelfind.session", signer_kwargs=options)
