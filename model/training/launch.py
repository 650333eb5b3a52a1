"""Starts a training run: in this process, or in several that train as one.

`train.processes` starts several on this host; `torchrun` starts them on one host or on more.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

import torch.multiprocessing as mp
from torch.distributed import FileStore  # type: ignore[attr-defined]

from model.config import Config
from model.processes import Group, LostProcessError, Place, joined, read_failure, store_of_environment
from model.progress import Report, silent
from model.runtime.errors import InputError, ReelfindError
from model.runtime.signals import handling_signals
from model.training.run import choose_device
from model.training.setup import start
from model.training.train import train

#: seconds that the other processes get to end by themselves when one has failed
_GRACE = 10.0
#: exit code of a process that has told of its error in the store
_TOLD = 1


def launch(settings: Callable[[], Config], report: Report, tokenizer_file: Path | None = None) -> None:
    """Train by a configuration until its end.

    Args:
        settings: reads the settings; called when the processes have met, so that a mistake in them is shown
            once.
        report: told about progress, in the first process alone.
        tokenizer_file: a `tokenizer.json` instead of the run's own or the published one.

    Raises:
        InputError: as `start`, or both torchrun and `train.processes` are to start processes.
        LossNotFiniteError: as `train_step`; of several processes, a ReelfindError with its message.
        KeyboardInterrupt: a signal stopped the run; its last step is saved.
        ReelfindError: one of several processes ended without a message, or did not answer.
        RuntimeError: a fault of the program in one of several processes; a note holds its traceback.
        SystemExit: in a process that torchrun started: another one of this host raises the error.
    """
    place = Place.from_environment(os.environ)
    if place is not None:
        with joined(place, store_of_environment(place)) as group:
            config = settings()
            check_processes(config, place)
            _train_in(group, config, report, tokenizer_file)
        return
    config = settings()
    if config.train.processes > 1:
        _spawn(config, report, tokenizer_file)
    else:
        train(start(config, report, tokenizer_file))


def check_processes(config: Config, place: Place) -> None:
    """Refuse settings that do not go with the processes that torchrun has started.

    Raises:
        InputError: the settings start processes too, or a batch cannot be divided among those there are.
    """
    if config.train.processes > 1:
        raise InputError(
            f"train.processes={config.train.processes}, and torchrun starts processes too ({place.world}): "
            "leave train.processes out, or start the command without torchrun"
        )
    if config.train.batch_size % place.world:
        raise InputError(
            f"train.batch_size={config.train.batch_size} must be a multiple of the {place.world} processes "
            "that torchrun starts: change it, or --nproc-per-node"
        )


def _train_in(group: Group, config: Config, report: Report, tokenizer_file: Path | None) -> None:
    """Train as one of several processes; only the first reports progress."""
    group.connect(choose_device(config.train.device, group.place.local_rank))
    train(start(config, silent if group.place.rank else report, tokenizer_file))


def _spawn(config: Config, report: Report, tokenizer_file: Path | None) -> None:
    """Train in `train.processes` processes of this host, which meet in a file."""
    count = config.train.processes
    choose_device(config.train.device, count - 1)
    context = mp.get_context("spawn")
    lines, sender = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder, lines:
        path = Path(folder) / "store"
        workers: list[SpawnProcess] = [
            context.Process(
                target=_worker,
                args=(Place(rank, count, rank, count), config, tokenizer_file, path, sender),
                daemon=True,
            )
            for rank in range(count)
        ]
        for worker in workers:
            worker.start()
        sender.close()  # so that `lines` ends with the workers
        with _forwarding_signals(workers):
            try:
                crashes = _listen(workers, lines, report)
            finally:
                for worker in workers:
                    worker.kill()
                    worker.join()
        failure = read_failure(FileStore(str(path)))
    error = failure.error() if failure is not None else None
    if crashes and (error is None or isinstance(error, LostProcessError)):
        raise ReelfindError(f"a training process ended with code {crashes[0]} and no message")
    if error is not None:
        raise error


def _listen(workers: list[SpawnProcess], lines: Connection, report: Report) -> list[int]:
    """Pass reports on until all processes have ended, or one has failed and the others had time to end.

    Returns:
        the exit codes of processes that ended without telling of an error.
    """
    crashes: list[int] = []
    running = {worker.sentinel: worker for worker in workers}
    open_lines = [lines]
    deadline: float | None = None
    while running or open_lines:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            break
        for ready in wait([*running, *open_lines], left):
            if isinstance(ready, int):
                worker = running.pop(ready)
                worker.join()
                if worker.exitcode:
                    deadline = deadline or time.monotonic() + _GRACE
                    crashes += [worker.exitcode] * (worker.exitcode != _TOLD)
                continue
            try:
                report(lines.recv())
            except EOFError:
                open_lines = []
    return crashes


@contextmanager
def _forwarding_signals(workers: list[SpawnProcess]) -> Iterator[None]:
    """Pass signals to stop on to the workers, who finish their step; a second signal kills them.

    A terminal's Ctrl-C also reaches the workers directly; they count several signals as one.
    """
    received = 0

    def forward(_number: int) -> None:
        nonlocal received
        received += 1
        for worker in workers:
            if worker.is_alive():
                (worker.terminate if received == 1 else worker.kill)()
        if received > 1:
            raise KeyboardInterrupt

    with handling_signals(forward):
        yield


def _worker(
    place: Place, config: Config, tokenizer_file: Path | None, store: Path, lines: Connection
) -> None:
    """Train as one of several processes; an error is told in the store."""
    try:
        with joined(place, FileStore(str(store))) as group:
            _train_in(group, config, lines.send, tokenizer_file)
    except BaseException:
        sys.exit(_TOLD)
