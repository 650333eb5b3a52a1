"""`Client`, which waits for each answer."""

import ssl
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from service.client.call import Call
from service.client.connection import TIMEOUT_SECONDS, http_options, retries_of
from service.client.errors import ClientError, own_errors
from service.client.events import Following
from service.client.job_answers import JobEvent
from service.client.methods import Methods, Sends
from service.client.retries import Attempts, Retries

T = TypeVar("T")


class Client(Methods, Sends):
    """A client of a Reelfind service. Several threads may use one.

    Args:
        url: the service's address, such as `http://127.0.0.1:8000`.
        key: a key of `reelfind keys create`; None: that of the environment variable REELFIND_KEY, if any.
        timeout: seconds to wait for a connection, and for each part of an answer.
        retries: how often a request is sent again that may be, or how (`Retries`).
        verify: whether certificates are checked, or a context that says how.
        trust_env: whether the environment names proxies and certificates (HTTPS_PROXY, SSL_CERT_FILE, …).

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
        self._http = httpx.Client(**http_options(url, key, timeout, verify, trust_env))
        self._retries = retries_of(retries)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def send(self, call: Call[T]) -> T:
        """The result of a request; the methods send theirs by it. Raises as `Sends.send`."""
        attempts = Attempts(self._retries, is_repeatable=call.is_repeatable)
        while True:
            try:
                with self._answer(call) as response:
                    if call.download is not None and response.is_success:
                        with call.download.writer(response) as write:
                            for part in response.iter_bytes():
                                write(part)
                    else:
                        response.read()
                    return call.result(response)
            except ClientError as error:
                seconds = attempts.wait_after(error)
            time.sleep(seconds)

    def follow(self, following: Following) -> Iterator[JobEvent]:
        """The events of a job; see `Sends.follow`."""
        attempts = Attempts(self._retries, is_repeatable=True)
        while True:
            call = following.call()
            try:
                with self._answer(call) as response:
                    if not response.is_success:
                        response.read()
                    call.result(response)
                    for line in response.iter_lines():
                        if (event := following.event(line)) is not None:
                            attempts = Attempts(self._retries, is_repeatable=True)
                            yield event
                if following.is_over(response):
                    return
                continue
            except ClientError as error:
                seconds = attempts.wait_after(error)
            time.sleep(seconds)

    @contextmanager
    def _answer(self, call: Call[Any]) -> Iterator[httpx.Response]:
        with own_errors(self._http.base_url):
            response = self._http.send(call.request(self._http), stream=True)
            with closing(response):
                yield response
