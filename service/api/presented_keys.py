"""Checks the keys that requests present.

Keys are hashed slowly when they are stored, so each request would take 20 ms. A key that was right is
therefore remembered for a while, as a fast keyed hash. What it may do, and whether it was revoked, is read
each time.
"""

import asyncio
import hashlib
import secrets
import time
from typing import NamedTuple

from starlette.concurrency import run_in_threadpool

from service.api.principal import Identity, Principal
from service.api.rate_limits import RateLimit
from service.errors import NotLoggedInError, TooManyRequestsError
from service.rights.keys import ApiKey, is_secret_of, parse_key
from service.rights.scopes import with_included
from service.rights.store import AccessStore

#: A key that was right need not be hashed again for this time.
_REMEMBERED_SECONDS = 600.0
_MOST_REMEMBERED = 1000


class _Remembered(NamedTuple):
    """A key that was right: the hash it was compared with, and until when it is remembered."""

    secret_hash: str
    until: float


class PresentedKeys:
    """Knows which keys were right lately, and from where wrong ones came. Belongs to one event loop."""

    def __init__(self, store: AccessStore, failures: RateLimit) -> None:
        """`failures` is how many wrong keys may come from one address."""
        self._store = store
        self._failures = failures
        self._hash_key = secrets.token_bytes(32)
        self._remembered: dict[bytes, _Remembered] = {}
        self._slow = asyncio.Lock()

    async def identify(self, text: str, address: str) -> Identity:
        """Who sent a request with this key, from this address.

        Raises:
            RightsError: the keys cannot be read.
        """
        parsed = parse_key(text)
        key = None if parsed is None else self._store.find(parsed.key_id)
        digest = self._fast_hash(text)
        if key is None or not self._is_remembered(digest, key):
            # One after the other: many wrong keys at once must take neither memory nor all cores.
            async with self._slow:
                # Another request may have shown it meanwhile.
                if key is None or not self._is_remembered(digest, key):
                    wait = self._failures.wait(address)
                    if wait is not None:
                        return _too_many(wait)
                    is_right = parsed is not None and await run_in_threadpool(
                        is_secret_of, key, parsed.secret
                    )
                    if key is None or not is_right:
                        self._failures.count(address)
                        return _wrong("" if parsed is None else f" with the id {parsed.key_id}")
                    self._remember(digest, key)
        if key.why_invalid is not None:
            return Identity(
                problem=NotLoggedInError(f"The key {shown_key(key)} {key.why_invalid}. Ask for another."),
                suspicion=f"the key {key.key_id}, which {key.why_invalid}",
            )
        return Identity(principal_of(key), "key")

    def _is_remembered(self, digest: bytes, key: ApiKey) -> bool:
        found = self._remembered.get(digest)
        return found is not None and found.secret_hash == key.secret_hash and found.until > time.monotonic()

    def _remember(self, digest: bytes, key: ApiKey) -> None:
        self._remembered.pop(digest, None)
        if len(self._remembered) >= _MOST_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        self._remembered[digest] = _Remembered(key.secret_hash, time.monotonic() + _REMEMBERED_SECONDS)

    def _fast_hash(self, text: str) -> bytes:
        # Its key makes it useless to know which hashes are compared: the time that this takes tells nothing.
        return hashlib.blake2b(text.encode(), key=self._hash_key, digest_size=32).digest()


def principal_of(key: ApiKey) -> Principal:
    """Who has a key."""
    return Principal(shown_key(key), with_included(key.scopes), key.folder, key.key_id, key.expires_at)


def shown_key(key: ApiKey) -> str:
    """What to call a key: its name, or else its id."""
    return key.name or key.key_id


def _too_many(seconds: int) -> Identity:
    message = f"Too many wrong keys came from your address. Try again in {seconds} s."
    return Identity(problem=TooManyRequestsError(message, retry_seconds=seconds))


def _wrong(which: str) -> Identity:
    return Identity(
        problem=NotLoggedInError("The key is not known. Check that it is copied whole."),
        suspicion=f"a wrong key{which}",
    )
