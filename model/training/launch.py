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
from model.training.train import NotFiniteError, train

# Errors whose message is for the user; they cross processes by name and message. Any other one is a fault of
# the program and crosses with its traceback.
_KINDS = {
    kind.__name__: kind for kind in (InputError, NotFiniteError, ReelfindError, OSError, KeyboardInterrupt)
}
#: seconds for the others to end by themselves when one process has failed
_GRACE = 10.0


def launch(config: Config, report: Report, tokenizer_file: Path | None = None) -> None:
    """Train by a configuration until its end.

    Raises:
        InputError: as `start`.
        NotFiniteError: as `train_step`.
        KeyboardInterrupt: stopped by a signal, with the last step saved.
        ReelfindError: a process of several ended without a message.
        RuntimeError: a fault of the program in one of several processes; its traceback is a note.
    """
    if config.train.processes == 1:
        train(start(config, report, tokenizer_file))
        return
    choose_device(config.train.device, config.train.processes - 1)
    context = mp.get_context("spawn")
    words: Any = context.Queue()
    with tempfile.TemporaryDirectory() as meeting:
        workers: list[SpawnProcess] = [
            context.Process(
                target=_worker,
                args=(rank, config, tokenizer_file, Path(meeting) / "store", words),
                daemon=True,
            )
            for rank in range(config.train.processes)
        ]
        for worker in workers:
            worker.start()
        with _forwarding_signals(workers):
            try:
                error = _listen(workers, words, report)
            finally:
                for worker in workers:
                    worker.kill()
                    worker.join()
    if error is not None:
        raise error


def _listen(workers: list[SpawnProcess], words: Any, report: Report) -> BaseException | None:
    """Pass on what the processes say until all have ended; the first error, and a moment for the others."""
    error: BaseException | None = None
    told = False  # whether the error is the cause: others may only follow from it
    while True:
        alive = any(worker.is_alive() for worker in workers)
        try:
            kind, text, trace = words.get(timeout=_GRACE if error else 0.2)
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
            if not told:
                error, told = _KINDS[kind](text), True
        elif not told and not isinstance(error, RuntimeError):
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


def _worker(rank: int, config: Config, tokenizer_file: Path | None, store: Path, words: Any) -> None:
    """One of several processes; the first speaks for all."""

    def report(text: str) -> None:
        if not rank:
            words.put(("report", text, ""))

    try:
        device = choose_device(config.train.device, rank)
        # Hours: the others wait while the first fills a cache or validates.
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
        known = (name for name, kind in _KINDS.items() if isinstance(error, kind))
        words.put((next(known, type(error).__name__), str(error), traceback.format_exc()))
        # Without this an exit may come before the words are out.
        words.close()
        words.join_thread()
        sys.exit(1)
