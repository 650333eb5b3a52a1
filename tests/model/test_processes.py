"""Processes that train together: their places, the order of their work, and whose error is shown.

Threads with a store take the part of the processes here; tests/model/training has real ones.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

pytest.importorskip("torch")

import torch.distributed as dist

from model.processes import Group, LostProcessError, Place, current, joined, read_failure
from model.runtime.errors import InputError, ReelfindError

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "GROUP_RANK": "1",
    "MASTER_ADDR": "10.0.0.1",
    "MASTER_PORT": "29500",
}
#: two hosts of two processes
PLACES = [Place(rank, 4, rank % 2, 2, rank // 2) for rank in range(4)]


def together(work: Callable[[Group], Any], places: list[Place] = PLACES) -> list[Any]:
    """What each process returns, or the error that ends it."""
    store = dist.HashStore()  # type: ignore[attr-defined]

    def run(place: Place) -> Any:
        group = Group(place, store)
        try:
            group.meet()
            return work(group)
        except Exception as error:
            try:
                group.fail(error)
            except BaseException as shown:
                return shown

    with ThreadPoolExecutor(len(places)) as pool:
        return list(pool.map(run, places))


def test_torchruns_variables_say_the_place() -> None:
    assert Place.from_environment(TORCHRUN) == Place(3, 4, 1, 2, 1)
    assert Place.from_environment({"MASTER_ADDR": "10.0.0.1", "PATH": "/bin"}) is None
    host_alone = {name: value for name, value in TORCHRUN.items() if name[:5] not in {"LOCAL", "GROUP"}}
    assert Place.from_environment(host_alone | {"LOCAL_RANK": "3"}) == Place(3, 4, 3, 4, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"MASTER_ADDR": ""}, "lacks MASTER_ADDR: start the command with torchrun"),
        ({"RANK": "", "MASTER_PORT": ""}, "lacks RANK, MASTER_PORT: start the command with torchrun"),
        ({"RANK": "-1"}, "RANK=-1 is no number"),
        ({"WORLD_SIZE": "many"}, "WORLD_SIZE=many is no number"),
        ({"RANK": "4"}, "RANK=4 must be less than WORLD_SIZE=4"),
    ],
)
def test_variables_that_torchrun_never_sets_are_refused(changes: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Place.from_environment(TORCHRUN | changes)


def test_the_first_of_all_works_first_then_the_first_of_each_host() -> None:
    spans: dict[int, tuple[float, float]] = {}

    def work(group: Group) -> None:
        with group.first_before_others():
            begin = time.monotonic()
            time.sleep(0.05)
            spans[group.place.rank] = begin, time.monotonic()

    together(work)
    (_, first), (_, of_own_host), (begin_other, other) = spans[0], spans[1], spans[2]
    assert first <= begin_other, "the other host may share the disk"
    assert first <= spans[1][0]
    assert other <= spans[3][0], "the other host may have its own disk"
    assert first < of_own_host


def test_all_wait_for_the_last() -> None:
    arrived: list[int] = []
    seen: list[int] = []
    lock = threading.Lock()

    def work(group: Group) -> None:
        for _ in range(2):
            time.sleep(0.05 * group.place.rank)
            with lock:
                arrived.append(group.place.rank)
            group.wait_for_all()
            with lock:
                seen.append(len(arrived))
            group.wait_for_all()

    together(work)
    assert seen == [4] * 4 + [8] * 4


def test_an_error_ends_the_others_and_each_host_shows_it_once() -> None:
    def work(group: Group) -> None:
        if group.place.rank == 1:
            raise InputError("output: no such disk", "output")
        group.wait_for_all()

    first, second, *others = together(work)
    assert isinstance(second, InputError)
    assert (str(second), second.field) == ("output: no such disk", "output")
    assert isinstance(first, SystemExit), "its neighbour tells of it"
    assert sorted(type(error).__name__ for error in others) == ["InputError", "SystemExit"]
    (told,) = (error for error in others if isinstance(error, InputError))
    assert str(told).startswith("process 2 of 4, on ")
    assert str(told).endswith(": output: no such disk")


def test_what_only_follows_from_an_error_is_not_shown() -> None:
    lost = (
        "[/build/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [::1]:9. Typical."
    )
    failed = threading.Event()

    def work(group: Group) -> None:
        if group.place.rank == 0:
            raise ZeroDivisionError("a fault of the program")
        failed.wait(0.3)
        raise RuntimeError(lost)

    first, second = together(work, [Place(rank, 2, rank, 2) for rank in range(2)])
    assert isinstance(first, ZeroDivisionError)
    assert isinstance(second, SystemExit)


def test_a_process_that_vanishes_is_told_in_plain_words() -> None:
    lost = (
        "[/build/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [::1]:9. Typical."
    )

    def work(group: Group) -> None:
        raise RuntimeError(lost)

    (error,) = together(work, [Place(0, 1, 0, 1)])
    assert isinstance(error, LostProcessError)
    assert "(Connection closed by peer [::1]:9): see whether its host runs" in str(error)


def test_a_fault_of_the_program_keeps_its_traceback() -> None:
    store = dist.HashStore()  # type: ignore[attr-defined]
    assert read_failure(store) is None
    with pytest.raises(ZeroDivisionError):
        Group(PLACES[2], store).fail(ZeroDivisionError("why"))
    failure = read_failure(store)
    assert failure is not None
    error = failure.error(host=1)
    assert type(error) is RuntimeError
    assert str(error) == "ZeroDivisionError: why"
    assert "ZeroDivisionError" in error.__notes__[0]
    assert str(failure.error(host=0)).startswith("process 3 of 4, on ")


def test_sigterm_before_the_first_step_interrupts() -> None:
    store = dist.HashStore()  # type: ignore[attr-defined]

    def start() -> None:
        with joined(Place(0, 1, 0, 1), store):
            assert current() is not None
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        start()
    assert current() is None
    failure = read_failure(store)
    assert failure is not None
    assert isinstance(failure.error(), KeyboardInterrupt)


def test_who_does_not_come_is_named() -> None:
    store = dist.HashStore()  # type: ignore[attr-defined]
    store.set("here/2", "")
    with pytest.raises(ReelfindError, match=r"2 of 4 processes did not start .* \(numbers 2, 4\)"):
        Group(PLACES[0], store).meet(timedelta(milliseconds=50))
