"""`AsyncClient`, whose answers are awaited."""

import ssl
from types import TracebackType
from typing import Self, TypeVar

import anyio
import anyio.to_thread
import httpx

from service.client.call import Call
from service.client.connection import TIMEOUT_SECONDS, http_options, retries_of
from service.client.errors import ClientError, ProblemError, lost
from service.client.methods import Methods, SendsAsync
from service.client.retries import Attempts, Retries

T = TypeVar("T")


class AsyncClient(Methods, SendsAsync):
    """A client of a Reelfind service for asyncio and trio; its arguments are those of `Client`.

    Raises:
        ValueError: the address or the key cannot be.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout: float | httpx.Timeout = TIMEOUT_SECONDS,
        retries: int | Retries = 3,
        verify: ssl.SSLContext | bool = True,
        trust_env: bool = True,
    ) -> None:
        self._http = httpx.AsyncClient(**http_options(url, key, timeout, verify, trust_env))
        self._retries = retries_of(retries)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def send(self, call: Call[T]) -> T:
        """The result of a request; the methods send theirs by it. Raises as `Sends.send`."""
        attempts = Attempts(self._retries, is_repeatable=call.is_repeatable)
        while True:
            failure: ClientError
            try:
                return await self._attempt(call)
            except httpx.TransportError as error:
                failure = lost(error, str(self._http.base_url))
                failure.__cause__ = error
            except ProblemError as error:
                failure = error
            await anyio.sleep(attempts.wait_after(failure))

    async def _attempt(self, call: Call[T]) -> T:
        response = await self._http.send(call.request(self._http), stream=True)
        try:
            if call.download is not None and response.is_success:
                with call.download.writer(response) as write:
                    async for part in response.aiter_bytes():
                        await anyio.to_thread.run_sync(write, part)
            else:
                await response.aread()
        finally:
            await response.aclose()
        return call.result(response)
