"""Whose turn it is: clients that wait get equal shares of the work, whatever each asks for at once.

Start-time fair queueing (Goyal, Vin and Cheng, 1996): each piece of work starts, in virtual time, where its
client's last piece ended, but not before the piece that is served now. The piece that starts first is served
first.
"""

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

Client = TypeVar("Client", bound=Hashable)

# Clients that had all their turns are forgotten once so many are remembered.
_MAX_REMEMBERED = 256


class FairTurns(Generic[Client]):
    """Chooses among clients that wait. A client that comes has no claim to time in which it did not wait."""

    def __init__(self) -> None:
        self._now = 0.0
        self._ends: dict[Client, float] = {}

    def next(self, waiting: Iterable[Client]) -> Client:
        """The client whose turn it is; the first of equals.

        Raises:
            ValueError: nobody waits.
        """
        return min(waiting, key=self._start)

    def charge(self, client: Client, cost: float) -> None:
        """Count work that was given to a client, in any unit that is the same for all."""
        self._now = self._start(client)
        self._ends[client] = self._now + cost
        if len(self._ends) > _MAX_REMEMBERED:
            self._ends = {client: end for client, end in self._ends.items() if end > self._now}

    def reset(self) -> None:
        """Nobody waits and nothing is served: forget what each had."""
        self._now = 0.0
        self._ends.clear()

    def _start(self, client: Client) -> float:
        return max(self._now, self._ends.get(client, 0.0))
