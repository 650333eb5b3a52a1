"""The clients: each searches without end, and notes what it asked and what it was told."""

import queue
import random
import threading
import time
from dataclasses import dataclass
from typing import Any

import httpx

from tests.soak.naive import Search
from tests.support.toy_bundle import ARTICLES, COLOURS

CLIENTS = 8
_PAUSE_SECONDS = 0.08
_PAUSE_AFTER_FAILURE = 0.5


@dataclass(frozen=True)
class Told:
    """One search: when it was sent and answered, and the answer.

    Attributes:
        status: of the response; 0: there was none.
        body: the answer's JSON, or what went wrong.
        retry_after: whether the response says when to try again.
        least_snapshot: the number of a snapshot that was served before the search was sent.
    """

    search: Search
    sent: float
    answered: float
    status: int
    body: Any
    retry_after: bool
    least_snapshot: int


class Clients:
    """`CLIENTS` threads that search a server until `stop`; `told` takes what they are told."""

    def __init__(self, url: str, seed: int) -> None:
        self.told: queue.SimpleQueue[Told] = queue.SimpleQueue()
        #: The newest snapshot that is known to be served.
        self.served = 0
        self._url = url
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._search, args=(random.Random(f"{seed}/client {number}"),))
            for number in range(CLIENTS)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End all threads."""
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _search(self, chance: random.Random) -> None:
        with httpx.Client(base_url=self._url, timeout=60.0, trust_env=False) as client:
            newest = 0
            while not self._ended.wait(chance.random() * 2 * _PAUSE_SECONDS):
                told = self._ask(client, random_search(chance), max(newest, self.served))
                self.told.put(told)
                if told.status == 200:
                    newest = told.body["snapshot"]
                else:
                    self._ended.wait(_PAUSE_AFTER_FAILURE)

    def _ask(self, client: httpx.Client, search: Search, least: int) -> Told:
        request = {"query": {"text": search.text}, "top_k": search.top_k, "rerank": search.rerank}
        sent = time.monotonic()
        try:
            response = client.post("/v1/search", json=request)
        except httpx.TransportError as error:
            return Told(search, sent, time.monotonic(), 0, repr(error), False, least)
        answered = time.monotonic()
        retry_after = "retry-after" in response.headers
        body = response.json() if response.status_code == 200 else response.text
        return Told(search, sent, answered, response.status_code, body, retry_after, least)


def random_search(chance: random.Random) -> Search:
    """A text of one to three words that the toy model knows."""
    words = chance.sample([*COLOURS], chance.choice((1, 1, 2)))
    if chance.random() < 0.3:
        words.insert(0, chance.choice(ARTICLES))
    return Search(" ".join(words), chance.choice((1, 3, 1000, 1000)), chance.random() < 0.5)
