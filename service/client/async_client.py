"""`AsyncClient`, whose answers are awaited."""

import ssl
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
import anyio.to_thread
import httpx

from service.client.call import Call
from service.client.connection import TIMEOUT_SECONDS, http_options, retries_of
from service.client.errors import ClientError, own_errors
from service.client.events import Following
from service.client.job_answers import JobEvent
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
            try:
                async with self._answer(call) as response:
                    if call.download is not None and response.is_success:
                        with call.download.writer(response) as write:
                            async for part in response.aiter_bytes():
                                await anyio.to_thread.run_sync(write, part)
                    else:
                        await response.aread()
                    return call.result(response)
            except ClientError as error:
                seconds = attempts.wait_after(error)
            await anyio.sleep(seconds)

    async def follow(self, following: Following) -> AsyncIterator[JobEvent]:
        """The events of a job; see `Sends.follow`."""
        attempts = Attempts(self._retries, is_repeatable=True)
        while True:
            call = following.call()
            try:
                async with self._answer(call) as response:
                    if not response.is_success:
                        await response.aread()
                    call.result(response)
                    async for line in response.aiter_lines():
                        if (event := following.event(line)) is not None:
                            attempts = Attempts(self._retries, is_repeatable=True)
                            yield event
                if following.is_over(response):
                    return
                continue
            except ClientError as error:
                seconds = attempts.wait_after(error)
            await anyio.sleep(seconds)

    @asynccontextmanager
    async def _answer(self, call: Call[Any]) -> AsyncIterator[httpx.Response]:
        with own_errors(self._http.base_url):
            response = await self._http.send(call.request(self._http), stream=True)
            async with aclosing(response):
                yield response
