"""Starts a training run: in this process, or in several that train together (`train.processes`)."""

from __future__ import annotations

import queue
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.multiprocessing as mp

from model.config import Config
from model.progress import Report
from model.runtime.errors import InputError, ReelfindError
from model.runtime.signals import handling_signals
from model.training.run import choose_device
from model.training.setup import start
from model.training.train import LossNotFiniteError, train

# Errors whose message is for the user are passed between processes by name and message. Any other error is a
# fault of the program, and is passed with its traceback.
_KINDS = {
    kind.__name__: kind
    for kind in (InputError, LossNotFiniteError, ReelfindError, OSError, KeyboardInterrupt)
}
#: seconds that the other processes get to end by themselves when one has failed
_GRACE = 10.0


def launch(config: Config, report: Report, tokenizer_file: Path | None = None) -> None:
    """Train by a configuration until its end.

    Args:
        config: the settings.
        report: told about progress.
        tokenizer_file: a `tokenizer.json` instead of the run's own or the published one.

    Raises:
        InputError: as `start`.
        LossNotFiniteError: as `train_step`.
        KeyboardInterrupt: a signal stopped the run; its last step is saved.
        ReelfindError: one of several processes ended without a message.
        RuntimeError: a fault of the program in one of several processes; a note holds its traceback.
    """
    if config.train.processes == 1:
        train(start(config, report, tokenizer_file))
        return
    choose_device(config.train.device, config.train.processes - 1)
    context = mp.get_context("spawn")
    messages: Any = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        workers: list[SpawnProcess] = [
            context.Process(
                target=_worker,
                args=(rank, config, tokenizer_file, Path(folder) / "store", messages),
                daemon=True,
            )
            for rank in range(config.train.processes)
        ]
        for worker in workers:
            worker.start()
        with _forwarding_signals(workers):
            try:
                error = _listen(workers, messages, report)
            finally:
                for worker in workers:
                    worker.kill()
                    worker.join()
    if error is not None:
        raise error


def _listen(workers: list[SpawnProcess], messages: Any, report: Report) -> BaseException | None:
    """Pass reports on until all processes have ended, or one has failed and the others had time to end.

    Returns:
        the error to raise; None: all went well.
    """
    error: BaseException | None = None
    is_cause = False  # whether a process gave the error a message; later ones may only follow from it
    while True:
        alive = any(worker.is_alive() for worker in workers)
        try:
            kind, text, trace = messages.get(timeout=_GRACE if error else 0.2)
        except queue.Empty:
            if error or not alive:
                break
            failed = [w.exitcode for w in workers if w.exitcode]
            if failed:
                error = ReelfindError(f"a training process ended with code {failed[0]} and no message")
            continue
        if kind == "report":
            report(text)
        elif kind in _KINDS:
            if not is_cause:
                error, is_cause = _KINDS[kind](text), True
        elif not is_cause and not isinstance(error, RuntimeError):
            error = RuntimeError(f"{kind}: {text}")
            error.add_note(trace)
    return error


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


def _worker(rank: int, config: Config, tokenizer_file: Path | None, store: Path, messages: Any) -> None:
    """Train as one of several processes; only the first reports progress."""

    def report(text: str) -> None:
        if not rank:
            messages.put(("report", text, ""))

    try:
        device = choose_device(config.train.device, rank)
        # Twelve hours, since the others wait while the first fills a cache or validates.
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method=store.as_uri(),
            rank=rank,
            world_size=config.train.processes,
            timeout=timedelta(hours=12),
        )
        train(start(config, report, tokenizer_file))
        dist.destroy_process_group()
    except BaseException as error:
        foreseen = (name for name, kind in _KINDS.items() if isinstance(error, kind))
        messages.put((next(foreseen, type(error).__name__), str(error), traceback.format_exc()))
        # Otherwise the process may exit before the message is sent.
        messages.close()
        messages.join_thread()
        sys.exit(1)
