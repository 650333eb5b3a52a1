"""Fair turns against a naive model that gives out work in the smallest steps."""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from service.search.fair_turns import FairTurns

MOST = 16


@dataclass
class Arrival:
    """A client that asks for pieces of work, from a moment on."""

    after: int
    pieces: list[int]


arrivals = st.lists(
    st.builds(
        Arrival,
        after=st.integers(0, 30),
        pieces=st.lists(st.integers(1, MOST), min_size=1, max_size=20),
    ),
    min_size=1,
    max_size=6,
)


def serve(clients: list[Arrival]) -> list[tuple[int, int, frozenset[int]]]:
    """Serve one piece after another; of each, the client, its cost, and who waited when it was chosen."""
    turns: FairTurns[int] = FairTurns()
    left = [list(client.pieces) for client in clients]
    served: list[tuple[int, int, frozenset[int]]] = []
    step = 0
    while any(left):
        waiting = [number for number, client in enumerate(clients) if left[number] and client.after <= step]
        if waiting:
            client = turns.next(waiting)
            cost = left[client].pop(0)
            turns.charge(client, cost)
            served.append((client, cost, frozenset(waiting)))
        else:
            turns.reset()
        step += 1
    return served


@settings(max_examples=200, deadline=None)
@given(arrivals)
def test_clients_that_wait_together_get_the_same_within_two_pieces(clients: list[Arrival]) -> None:
    """A fluid that is poured out evenly gives each exactly the same; the turns differ by a piece each."""
    served = serve(clients)
    assert sorted(cost for _, cost, _ in served) == sorted(cost for c in clients for cost in c.pieces)
    for one in range(len(clients)):
        for other in range(one):
            for first in range(len(served)):
                got = {one: 0, other: 0}
                for client, cost, waiting in served[first:]:
                    if not {one, other} <= waiting:
                        break
                    if client in got:
                        got[client] += cost
                    assert abs(got[one] - got[other]) <= 2 * MOST


def test_the_order_is_that_of_starts_in_virtual_time() -> None:
    """Worked by hand: pieces of 4 against pieces of 1, and a third client that comes late."""
    clients = [Arrival(0, [4] * 4), Arrival(0, [1] * 8), Arrival(6, [2] * 2)]
    assert [client for client, _, _ in serve(clients)] == [0, 1, 1, 1, 1, 0, 1, 2, 1, 1, 2, 1, 0, 0]


def test_who_comes_has_no_claim_to_the_past_nor_a_debt_for_idle_time() -> None:
    turns: FairTurns[str] = FairTurns()
    for _ in range(100):
        turns.charge("old", 1)
    assert turns.next(["old", "new"]) == "new"
    turns.charge("new", 1)
    turns.charge(turns.next(["new", "old"]), 1)
    # Not a hundred turns in a row for the one who came late.
    order = []
    for _ in range(6):
        order.append(client := turns.next(["new", "old"]))
        turns.charge(client, 1)
    assert order in (["new", "old"] * 3, ["old", "new"] * 3)
    turns.charge("old", 1000)
    turns.reset()
    assert turns.next(["old", "new"]) == "old", "after a pause all begin anew"


def test_clients_that_had_their_turns_are_forgotten() -> None:
    turns: FairTurns[int] = FairTurns()
    for client in range(10_000):
        turns.charge(client, 1)
        turns.charge(-1, 1)
    assert len(turns._ends) <= 257
