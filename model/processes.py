"""The processes that train together: how they meet, wait for each other, and end together when one fails.

`torchrun` starts them, on one host or on several, or `train.processes` does. They meet at a store, a small
table that all of them read and write. Tensors go another way, see `model.distributed`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import NoReturn

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from model.runtime.errors import InputError, ReelfindError
from model.runtime.exits import FAILED, is_foreseen
from model.runtime.signals import handling_signals

#: how long the processes wait for each other at the start: all hosts are started by then
MEETING = timedelta(minutes=10)
#: how long a process waits for the others within a step
STEP = timedelta(hours=1)
#: how long the others wait while the first process fills a cache or validates
LONG_WORK = timedelta(hours=12)

#: set by torchrun for every process; the first three tell that it was torchrun
_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_POLL_SECONDS = 0.1
_FAILED, _CAUSE = "failed", "cause"
# What Gloo says when a process has gone. NCCL's errors have a type.
_GLOO_LOST = re.compile(r"/gloo/.*(connection|timed out|broken pipe|socket)", re.IGNORECASE | re.DOTALL)


class LostProcessError(ReelfindError):
    """Another process of the run has ended, or does not answer."""


@dataclass(frozen=True)
class Place:
    """A process's place among those that train together; all numbers count from 0.

    Attributes:
        rank: its number among all processes.
        world: how many there are.
        local_rank: its number among those of its host, which is also the number of its GPU.
        local_world: how many its host has.
        host: the number of its host.
    """

    rank: int
    world: int
    local_rank: int
    local_world: int
    host: int = 0

    @property
    def title(self) -> str:
        """What messages call the process: people count from 1."""
        return f"process {self.rank + 1} of {self.world}"

    @classmethod
    def from_environment(cls, variables: Mapping[str, str]) -> Place | None:
        """The place that torchrun's variables say; None: torchrun did not start this process.

        Raises:
            InputError: some of the variables are missing, or are no numbers.
        """
        present = [name for name in _VARIABLES[:3] if name in variables]
        if not present:
            return None
        missing = [name for name in _VARIABLES if not variables.get(name)]
        if missing:
            raise InputError(
                f"the environment has {', '.join(present)} but lacks {', '.join(missing)}: start the command "
                f"with torchrun, which sets them all, or unset {', '.join(present)}"
            )

        def number(name: str, default: int = 0) -> int:
            text = variables.get(name) or str(default)
            if not text.isdecimal():
                raise InputError(f"{name}={text} is no number: start the command with torchrun, or unset it")
            return int(text)

        world = number("WORLD_SIZE")
        place = cls(
            rank=number("RANK"),
            world=world,
            local_rank=number("LOCAL_RANK"),
            local_world=max(1, number("LOCAL_WORLD_SIZE", world)),
            host=number("GROUP_RANK"),
        )
        if place.rank >= place.world:
            raise InputError(
                f"RANK={place.rank} must be less than WORLD_SIZE={place.world}: start the command with "
                "torchrun"
            )
        return place


def store_of_environment(place: Place) -> Store:
    """The store at MASTER_ADDR and MASTER_PORT (`env://`).

    Raises:
        ReelfindError: there is no connection to it.
        SystemExit: the same, and the first process of this host tells of it.
    """
    try:
        store: Store = next(rendezvous("env://", timeout=MEETING))[0]
    except (RuntimeError, ValueError) as error:
        if place.local_rank:
            raise SystemExit(FAILED) from None
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise ReelfindError(
            f"no connection to the first process at {address} ({_reason(error)}): start torchrun on every "
            "host with the same --nnodes and address, and open that port between the hosts"
        ) from error
    return store


@dataclass(frozen=True)
class Failure:
    """The error that ended a run, as the other processes read it in the store."""

    kind: str
    message: str
    field: str | None
    trace: str
    rank: int
    host: int
    where: str

    @classmethod
    def of(cls, error: BaseException, place: Place) -> Failure:
        """An error of the process at a place."""
        if isinstance(error, KeyboardInterrupt | LostProcessError | InputError):
            kind = type(error).__name__
        elif isinstance(error, Exception) and is_foreseen(error):
            kind = "ReelfindError"
        else:
            kind = "RuntimeError"
        message = str(error) if kind != "RuntimeError" else f"{type(error).__name__}: {error}"
        where = f"{place.title}, on {socket.gethostname()}"
        trace = "".join(traceback.format_exception(error))
        return cls(kind, message, getattr(error, "field", None), trace, place.rank, place.host, where)

    def error(self, host: int = 0) -> BaseException:
        """The error to raise in another process; that of another host says where it was."""
        if self.kind == "KeyboardInterrupt":
            return KeyboardInterrupt()
        elsewhere = host != self.host
        message = f"{self.where}: {self.message}" if elsewhere else self.message
        if self.kind == "InputError":
            return InputError(message, None if elsewhere else self.field)
        if self.kind == "RuntimeError":
            error = RuntimeError(message)
            error.add_note(self.trace)
            return error
        return (LostProcessError if self.kind == "LostProcessError" else ReelfindError)(message)


def read_failure(store: Store) -> Failure | None:
    """The first failure of a run; None: no process has told of one."""
    if not store.check([_CAUSE]):
        return None
    return Failure(**json.loads(store.get(_CAUSE)))


class Group:
    """The processes that train together, seen from one of them.

    Every process calls `first_before_others` and `wait_for_all` equally often and in the same order.
    """

    def __init__(self, place: Place, store: Store) -> None:
        """Meet nobody yet; see `meet`."""
        self.place = place
        self._store = store
        self._waits = 0

    def meet(self, patience: timedelta = MEETING) -> None:
        """Wait until all processes are here.

        Raises:
            ReelfindError: some did not come; the message names them.
        """
        keys = [f"here/{rank}" for rank in range(self.place.world)]
        self._store.set(keys[self.place.rank], "")
        try:
            self._store.wait(keys, patience)
        except RuntimeError as error:
            absent = [rank + 1 for rank, key in enumerate(keys) if not self._store.check([key])]
            raise ReelfindError(
                f"{len(absent)} of {self.place.world} processes did not start within {patience} (numbers "
                f"{', '.join(map(str, absent))}): start torchrun on every host with the same --nnodes and "
                "--nproc-per-node"
            ) from error

    def connect(self, device: torch.device) -> None:
        """Connect the processes, so that they can exchange tensors of a device.

        Raises:
            ReelfindError: they cannot reach each other.
        """
        if self.place.world == 1:
            return
        on_gpu = device.type == "cuda"
        if on_gpu:
            torch.cuda.set_device(device)
        try:
            dist.init_process_group(
                "nccl" if on_gpu else "gloo",
                store=PrefixStore("tensors", self._store),
                rank=self.place.rank,
                world_size=self.place.world,
                timeout=STEP,
                device_id=device if on_gpu else None,
            )
        except RuntimeError as error:
            raise LostProcessError(
                f"the processes cannot connect to each other ({_reason(error)}): name the network "
                f"interface that joins the hosts in {'NCCL' if on_gpu else 'GLOO'}_SOCKET_IFNAME"
            ) from error

    @contextmanager
    def first_before_others(self) -> Iterator[None]:
        """Run the block in the first process, then in the first of every other host, then in all others.

        So files that the block writes unless they are there are written once for each disk.

        Raises:
            LostProcessError: a process has failed meanwhile, or `LONG_WORK` has passed.
        """
        self._waits += 1
        first, host = f"{self._waits}/first", f"{self._waits}/host/{self.place.host}"
        if self.place.rank:
            self._wait(first)
        if self.place.local_rank:
            self._wait(host)
        yield
        if not self.place.rank:
            self._store.set(first, "")
        if not self.place.local_rank:
            self._store.set(host, "")
        self.wait_for_all()

    def wait_for_all(self) -> None:
        """Wait until all processes have come here, however long one works alone.

        Raises:
            LostProcessError: a process has failed meanwhile, or `LONG_WORK` has passed.
        """
        self._waits += 1
        if self._store.add(f"{self._waits}/count", 1) == self.place.world:
            self._store.set(f"{self._waits}/all", "")
        self._wait(f"{self._waits}/all")

    def leave(self) -> None:
        """Disconnect at the end of a run. The first process leaves last, since it may hold the store."""
        if dist.is_initialized():
            dist.destroy_process_group()
        keys = [f"left/{rank}" for rank in range(self.place.world)]
        if self.place.rank:
            self._store.set(keys[self.place.rank], "")
        for key in () if self.place.rank else keys[1:]:
            self._wait(key)

    def fail(self, error: BaseException) -> NoReturn:
        """End this process after an error, so that each host shows the error of the run once.

        Raises:
            BaseException: the first failure of the run, in one process of each host.
            SystemExit: in all others.
        """
        error = _without_jargon(error)
        try:
            if self._store.add(_FAILED, 1) == 1:
                self._store.set(_CAUSE, json.dumps(asdict(Failure.of(error, self.place))))
                raise error
            cause = Failure(**json.loads(self._store.get(_CAUSE)))
            first_here = self._store.add(f"{_FAILED}/{self.place.host}", 1) == 1
        except dist.DistError:  # the store has gone with the process that holds it
            raise error from None
        if first_here and cause.host != self.place.host:
            raise cause.error(self.place.host) from None
        raise SystemExit(FAILED) from None

    def _wait(self, key: str) -> None:
        deadline = time.monotonic() + LONG_WORK.total_seconds()
        while not self._store.check([key]):
            if self._store.check([_FAILED]):
                raise LostProcessError("another process of the run has failed")
            if time.monotonic() > deadline:
                raise LostProcessError(
                    f"the other processes of the run did not answer for {LONG_WORK}: see whether all hosts "
                    "still run and reach their disks, and repeat the command to resume"
                )
            time.sleep(_POLL_SECONDS)


_current: Group | None = None


@contextmanager
def joined(place: Place, store: Store) -> Iterator[Group]:
    """Be one of the processes that train together while the block runs. SIGTERM ends it as Ctrl-C does.

    Raises:
        ReelfindError: not all processes have come.
        BaseException: the first failure of any process, in one process of each host; see `Group.fail`.
        SystemExit: a process has failed, and another one of this host tells of it.
    """
    global _current
    group = Group(place, store)
    _current = group
    try:
        with handling_signals(_interrupt, (signal.SIGTERM,)):
            group.meet()
            yield group
            group.leave()
    except BaseException as error:
        group.fail(error)
    finally:
        _current = None


def _interrupt(_number: int) -> None:
    raise KeyboardInterrupt


def current() -> Group | None:
    """The processes that train together; None: this one trains alone."""
    return _current


@contextmanager
def first_before_others() -> Iterator[None]:
    """As `Group.first_before_others`; alone, run the block."""
    if _current is None:
        yield
        return
    with _current.first_before_others():
        yield


def wait_for_all() -> None:
    """As `Group.wait_for_all`; alone, do not wait."""
    if _current is not None:
        _current.wait_for_all()


def _without_jargon(error: BaseException) -> BaseException:
    """An error of the connection as one for the user; any other as it is."""
    if not isinstance(error, dist.DistError) and not (
        type(error) is RuntimeError and _GLOO_LOST.search(str(error))
    ):
        return error
    said = LostProcessError(
        f"another process of the run ended without a message, or could not be reached ({_reason(error)}): "
        "see whether its host runs and has memory left, and repeat the command to resume"
    )
    said.__cause__ = error
    return said


def _reason(error: BaseException) -> str:
    """The first sentence of an error of PyTorch, without the place in its source."""
    text = re.sub(r"^\[[^]]*\]\s*", "", " ".join(str(error).split()))
    return text.split(". ")[0][:200] or type(error).__name__
