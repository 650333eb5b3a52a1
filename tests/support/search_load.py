"""Searches that many clients send to a server, each one after the other, until they are stopped."""

import itertools
import threading
from collections.abc import Sequence
from typing import Any

import httpx

from tests.support.server import until


class SearchLoad:
    """Clients in threads of their own. One that fails stops.

    Attributes:
        failures: what failed.
        answers: what was asked, and the answer.
    """

    def __init__(self, url: str, clients: int, texts: Sequence[str], *, keep_alive: bool = True) -> None:
        self.failures: list[str] = []
        self.answers: list[tuple[str, dict[str, Any]]] = []
        self._url = url
        self._texts = texts
        self._limits = httpx.Limits(max_keepalive_connections=None if keep_alive else 0)
        self._clients = clients
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=[number]) for number in range(clients)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Return when all have stopped."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def more(self, count: int = 100) -> list[tuple[str, dict[str, Any]]]:
        """The next answers, of searches that begin from now on; those on their way are passed over."""
        first = len(self.answers) + self._clients
        until(lambda: len(self.answers) >= first + count or bool(self.failures))
        return self.answers[first : first + count]

    def _ask(self, number: int) -> None:
        with httpx.Client(base_url=self._url, trust_env=False, timeout=60.0, limits=self._limits) as client:
            for text in itertools.islice(itertools.cycle(self._texts), number, None):
                if self._stop.is_set():
                    return
                try:
                    response = client.post("/v1/search", json={"query": {"text": text}})
                    response.raise_for_status()
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))
                    return
                self.answers.append((text, response.json()))
