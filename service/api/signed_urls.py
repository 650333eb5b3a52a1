"""Signed addresses: whoever has one may read it, until it expires.

They are for players and pages elsewhere, which have neither key nor cookie. The signature (HMAC-SHA256)
covers the path and everything else in the address: another video, another span of a clip or a later expiry
needs another signature. An address counts as long as whoever asked for it may read the path.
"""

import hashlib
import hmac
import time
from collections.abc import MutableMapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from itsdangerous import Signer

_EXPIRES, _BY, _SIGNATURE = "expires", "by", "signature"
#: The parameters that signing adds.
OWN_PARAMETERS = (_EXPIRES, _BY, _SIGNATURE)
Parameters = list[tuple[str, str]]


@dataclass(frozen=True)
class SignedUrl:
    """A signed address.

    Attributes:
        path: its path, decoded.
        parameters: those of its query that are not of signing.
        by: who asked for it: `key:ID`, `user:NAME`, or `none`.
        expires_at: until when it counts, in whole seconds since 1970.
        signature: as it was given.
    """

    path: str
    parameters: Parameters
    by: str
    expires_at: int
    signature: str

    @property
    def _text(self) -> str:
        """What is signed. Every part is encoded, so that no other parts give the same text."""
        return (
            f"{quote(self.path)}\n{urlencode(sorted(self.parameters))}\n{quote(self.by)}\n{self.expires_at}"
        )

    def is_genuine(self, secret: bytes) -> bool:
        """Whether it was signed with this secret, compared in constant time."""
        # Compared as text: other texts mean the same bytes, and a signature has one way to be written.
        expected = _signer(secret).get_signature(self._text)
        return hmac.compare_digest(expected, self.signature.encode())

    @property
    def has_expired(self) -> bool:
        """Whether it does not count any more."""
        return self.expires_at <= time.time()

    def __str__(self) -> str:
        own = [(_EXPIRES, str(self.expires_at)), (_BY, self.by), (_SIGNATURE, self.signature)]
        return f"{quote(self.path)}?{urlencode([*self.parameters, *own])}"


def sign_url(path: str, parameters: Parameters, by: str, expires_at: int, secret: bytes) -> SignedUrl:
    """Sign an address."""
    unsigned = SignedUrl(path, parameters, by, expires_at, "")
    signature = _signer(secret).get_signature(unsigned._text).decode()
    return SignedUrl(path, parameters, by, expires_at, signature)


def signed_url_of(scope: MutableMapping[str, Any]) -> SignedUrl | None:
    """The signed address of a request; None: it claims to be none.

    Raises:
        ValueError: it claims to be one, and is malformed.
    """
    query: bytes = scope["query_string"]
    if _SIGNATURE.encode() not in query:
        return None
    try:
        parameters = parse_qsl(
            query.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict"
        )
    except ValueError:
        if f"{_SIGNATURE}=".encode() in query:
            raise
        return None
    own = {name: [value for key, value in parameters if key == name] for name in OWN_PARAMETERS}
    if not own[_SIGNATURE]:
        return None
    (expires,), (by,), (signature,) = own[_EXPIRES], own[_BY], own[_SIGNATURE]
    if not (expires.isascii() and expires.isdigit() and len(expires) < 12):
        raise ValueError("expires is no time")
    rest = [(key, value) for key, value in parameters if key not in OWN_PARAMETERS]
    return SignedUrl(scope["path"], rest, by, int(expires), signature)


@lru_cache(maxsize=4)
def _signer(secret: bytes) -> Signer:
    if not secret:
        raise ValueError("no secret to sign with")
    return Signer(secret, salt="reelfind.url", key_derivation="hmac", digest_method=hashlib.sha256)
