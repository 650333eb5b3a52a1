"""Keys: how they look, how they are hashed, and what is stored of one.

A key is `rf_ID_SECRET`. The id is public: it names the key in lists and in the log. The secret has 256 random
bits and is shown once; what is stored is its Argon2id hash (RFC 9106).
"""

import re
import secrets
import time
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from service.rights.folders import Folder
from service.rights.scopes import Scope

_KEY = re.compile(r"rf_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
# 256 random bits cannot be guessed whatever a guess costs. This one takes 19 MiB, so that a service on which
# strangers try keys stays small.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)


class KeyText(NamedTuple):
    """The two parts of a key as its holder has it."""

    key_id: str
    secret: str

    def __str__(self) -> str:
        return f"rf_{self.key_id}_{self.secret}"


@dataclass(frozen=True)
class ApiKey:
    """What is stored of a key. Times are in seconds since 1970.

    Attributes:
        key_id: 12 hex digits.
        name: what the user calls it; may be empty.
        scopes: as they were given, without what they include.
        folder: the folder that it is limited to; None: none.
        secret_hash: the Argon2id hash of the secret.
        created_at: when it was made.
        expires_at: from when on it does not count; None: never.
        revoked_at: since when it does not count; None: it was not revoked.
    """

    key_id: str
    name: str
    scopes: tuple[Scope, ...]
    folder: Folder | None
    secret_hash: str
    created_at: float
    expires_at: float | None
    revoked_at: float | None

    @property
    def why_invalid(self) -> str | None:
        """Why the key does not count now, in words that end a sentence; None: it counts."""
        if self.revoked_at is not None:
            return "was revoked"
        if self.expires_at is not None and self.expires_at <= time.time():
            return "has expired"
        return None


def new_key_text() -> KeyText:
    """A new random key."""
    return KeyText(secrets.token_hex(6), secrets.token_urlsafe(32))


def parse_key(text: str) -> KeyText | None:
    """The parts of a key; None: the text is none."""
    match = _KEY.fullmatch(text)
    return KeyText(match[1], match[2]) if match else None


def hash_secret(secret: str) -> str:
    """The hash of a secret, which is stored. Takes some 20 ms and 19 MiB."""
    return _HASHER.hash(secret)


def is_secret_of(key: ApiKey | None, secret: str) -> bool:
    """Whether a secret is that of a key, compared in constant time; for None as slowly, and never.

    Takes some 20 ms and 19 MiB.
    """
    try:
        _HASHER.verify(_nobodys_hash() if key is None else key.secret_hash, secret)
    except (Argon2Error, InvalidHashError):
        return False
    return key is not None


@cache
def _nobodys_hash() -> str:
    """What the secret of a key that does not exist is compared with, so that the answer takes as long."""
    return _HASHER.hash(secrets.token_urlsafe(32))
