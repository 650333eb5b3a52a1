"""Searches that many clients send to a server, each one after the other, until they are stopped."""

import itertools
import threading
import time
from collections.abc import Sequence
from typing import Any

import httpx

from tests.support.server import until


class SearchLoad:
    """Clients in threads of their own. One that fails stops.

    Attributes:
        failures: what failed.
    """

    def __init__(self, url: str, clients: int, texts: Sequence[str], *, keep_alive: bool = True) -> None:
        self.failures: list[str] = []
        # When a search began, what was asked, and the answer.
        self._answers: list[tuple[float, str, dict[str, Any]]] = []
        self._url = url
        self._texts = texts
        self._limits = httpx.Limits(max_keepalive_connections=None if keep_alive else 0)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=[number]) for number in range(clients)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Return when all have stopped."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def answers(self) -> list[tuple[str, dict[str, Any]]]:
        """What was asked, and the answer, as they came."""
        return [(text, answer) for _, text, answer in self._answers]

    def more(self, count: int = 100) -> list[tuple[str, dict[str, Any]]]:
        """The next answers, of searches that begin from now on; those on their way are passed over."""
        now, first = time.monotonic(), len(self._answers)

        def begun() -> list[tuple[str, dict[str, Any]]]:
            return [(text, answer) for at, text, answer in self._answers[first:] if at > now]

        until(lambda: len(begun()) >= count or bool(self.failures))
        return begun()[:count]

    def _ask(self, number: int) -> None:
        with httpx.Client(base_url=self._url, trust_env=False, timeout=60.0, limits=self._limits) as client:
            for text in itertools.islice(itertools.cycle(self._texts), number, None):
                if self._stop.is_set():
                    return
                begun = time.monotonic()
                try:
                    response = client.post("/v1/search", json={"query": {"text": text}})
                    response.raise_for_status()
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))
                    return
                self._answers.append((begun, text, response.json()))
