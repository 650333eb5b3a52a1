"""What both clients share: the address, the key and the limits of a connection."""

import os
import ssl
from typing import Any

import httpx

from service.client.retries import Retries

#: The environment variable with the key of those who give none.
KEY_VARIABLE = "REELFIND_KEY"
TIMEOUT_SECONDS = 60.0


def http_options(
    url: str, key: str | None, timeout: float | httpx.Timeout, verify: ssl.SSLContext | bool, trust_env: bool
) -> dict[str, Any]:
    """The options of a client of httpx.

    Raises:
        ValueError: the address or the key cannot be.
    """
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"{url!r} is no address ({error}): give one such as http://127.0.0.1:8000") from None
    if address.scheme not in ("http", "https") or not address.host:
        raise ValueError(f"{url!r} is no address of a service: give one such as http://127.0.0.1:8000")
    given = os.environ.get(KEY_VARIABLE, "") if key is None else key
    if not given.isascii() or not given.isprintable() or " " in given:
        raise ValueError(
            "the key has characters that no key has: give it, by `key` or "
            f"{KEY_VARIABLE}, as `reelfind keys create` prints it"
        )
    headers = {"user-agent": "reelfind-client", "accept": "*/*"}
    if given:
        headers["authorization"] = f"Bearer {given}"
    return {
        "base_url": address,
        "headers": headers,
        "timeout": timeout,
        # Without TLS, certificates are not read, which takes longer than a search. This context trusts none:
        # should TLS come after all, it fails.
        "verify": verify if address.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        "trust_env": trust_env,
        # A redirection elsewhere must not get the key.
        "follow_redirects": False,
    }


def retries_of(retries: int | Retries) -> Retries:
    """How often a request is sent again."""
    return Retries(retries) if isinstance(retries, int) else retries
