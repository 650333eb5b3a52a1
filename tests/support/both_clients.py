"""One use for both clients, `Client` and `AsyncClient`."""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import anyio

from service.client import AsyncClient, Client


@dataclass(frozen=True)
class BothClients:
    """Asks a server by a new client of one kind."""

    kind: Literal["Client", "AsyncClient"]
    url: str

    def __call__(self, use: Callable[[Any], Any], **options: Any) -> Any:
        """What `use` gets from the client: what it awaits, or a list of all it iterates through."""
        if self.kind == "AsyncClient":
            return anyio.run(self._ask_async, use, options)
        with Client(self.url, trust_env=False, **options) as client:
            result = use(client)
            return list(result) if isinstance(result, Iterator) else result

    async def _ask_async(self, use: Callable[[Any], Any], options: dict[str, Any]) -> Any:
        async with AsyncClient(self.url, trust_env=False, **options) as client:
            result = use(client)
            if isinstance(result, AsyncIterator):
                return [item async for item in result]
            return await result
