"""Keys for a test's server, made as `reelfind keys create` makes them, and headers that present them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx

from service.rights.folders import Folder
from service.rights.scopes import Scope
from service.rights.store import AccessStore
from tests.support.server import Server
from tests.support.toy_library import ToyLibrary

#: The options of a server that asks for keys.
WITH_KEYS = ("--auth", "keys")


def state_of(toy: ToyLibrary) -> Path:
    """The state folder of a server of this library."""
    return toy.library.with_name(f"{toy.library.name}-state")


def make_key(
    toy: ToyLibrary,
    *scopes: Scope,
    name: str = "",
    folder: Path | None = None,
    expires_at: float | None = None,
) -> str:
    """A new key."""
    limited = None if folder is None else Folder.named(str(folder))
    with closing(AccessStore(state_of(toy))) as store:
        text, _ = store.create(scopes, name=name, folder=limited, expires_at=expires_at)
    return str(text)


def revoke(toy: ToyLibrary, key: str) -> None:
    """Let a key count no more, as `reelfind keys revoke` does in a process of its own."""
    with closing(AccessStore(state_of(toy))) as store:
        assert store.revoke(key.split("_")[1])


def bearer(key: str) -> dict[str, str]:
    """The headers that present a key."""
    return {"Authorization": f"Bearer {key}"}


def browser_of(server: Server, *, address: str = "127.0.0.1") -> httpx.Client:
    """A client that keeps cookies and says that it is on the service's own page, as a browser does."""
    return httpx.Client(
        base_url=server.url,
        headers={"Origin": server.url, "Sec-Fetch-Site": "same-origin"},
        transport=httpx.HTTPTransport(local_address=address),
        timeout=30.0,
        trust_env=False,
    )


@contextmanager
def log_in(server: Server, key: str) -> Iterator[httpx.Client]:
    """A client with a session."""
    with browser_of(server) as client:
        response = client.post("/v1/session", json={"key": key})
        assert response.status_code == 200, response.text
        yield client
