"""Starts a training run: in this process, or in several that train together (`train.processes`)."""

from __future__ import annotations

import contextlib
import queue
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import FrameType
from typing import Any

import torch.distributed as dist
import torch.multiprocessing as mp

from model.config import Config
from model.runtime.errors import InputError, ReelfindError
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


def launch(config: Config, report: Callable[[str], None], tokenizer_file: Path | None = None) -> None:
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
        with _forwarded(workers):
            try:
                error = _listen(workers, words, report)
            finally:
                for worker in workers:
                    worker.kill()
                    worker.join()
    if error is not None:
        raise error


def _listen(workers: list[SpawnProcess], words: Any, report: Callable[[str], None]) -> BaseException | None:
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


class _forwarded(contextlib.AbstractContextManager[None]):  # noqa: N801  used like a function
    """Signals to this process reach the workers, who finish their step; a second one ends them at once.

    A terminal's Ctrl-C reaches the workers by itself too: for them, several are as one.
    """

    def __init__(self, workers: list[SpawnProcess]) -> None:
        self._workers, self._asked = workers, 0
        self._before: dict[signal.Signals, Any] = {}

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self._asked += 1
        for worker in self._workers:
            if worker.is_alive():
                (worker.terminate if self._asked == 1 else worker.kill)()
        if self._asked > 1:
            raise KeyboardInterrupt

    def __enter__(self) -> None:
        with contextlib.suppress(ValueError):  # outside the main thread
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


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
