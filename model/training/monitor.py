"""Shows a training run (progress, `log.jsonl`, TensorBoard), and lets a person stop it."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from model.progress import Report, duration
from model.runtime.files import replace_text
from model.runtime.installing import install_packages
from model.runtime.signals import handling_signals


class Monitor:
    """Writes the figures of a run; does nothing if `folder` is None, as in all processes but the first."""

    def __init__(self, folder: Path | None, step: int, total: int, tensorboard: bool, report: Report) -> None:
        """Open the files. Rows after `step` are dropped, since a resumed run writes them again.

        Args:
            folder: the run's folder; None: write nothing.
            step: optimiser steps that are done.
            total: optimiser steps of the whole run.
            tensorboard: write TensorBoard events too.
            report: told about each step that is logged.
        """
        self._total, self._report = total, report
        self._began, self._first = time.monotonic(), step
        self._log: TextIO | None = None
        self._writer: Any = None
        if folder is None:
            return
        path = folder / "log.jsonl"
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines()
            earlier = [line for line in lines if _step_of(line) <= step]
            replace_text(path, "".join(f"{line}\n" for line in earlier))
        self._log = path.open("a", encoding="utf-8")
        if tensorboard:
            self._writer = self._open_tensorboard(folder / "tensorboard", step)

    def _open_tensorboard(self, folder: Path, step: int) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            command = install_packages("tensorboard")
            self._report(f"no TensorBoard events: `{command}`, or set train.tensorboard=false")
            return None
        return SummaryWriter(str(folder), purge_step=step + 1)

    def step(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """Log the figures of a step, and report them with the time left."""
        self._write("", step, epoch, values, dict(values))
        if self._log is None:
            return
        seconds = (time.monotonic() - self._began) / max(1, step - self._first)
        figures = " ".join(f"{name} {value:.3g}" for name, value in values.items())
        self._report(
            f"step {step}/{self._total} {figures} · {seconds:.2f} s a step, "
            f"{duration(seconds * (self._total - step))} left"
        )

    def validation(self, step: int, epoch: int, metrics: Mapping[str, Any]) -> None:
        """Log the figures of a validation, nested by how videos are ranked."""
        flat = {f"{a}/{b}": v for a, row in metrics.items() for b, v in row.items()}
        self._write("validation/", step, epoch, flat, {"validation": metrics})

    def _write(
        self, prefix: str, step: int, epoch: int, values: Mapping[str, float], row: Mapping[str, Any]
    ) -> None:
        if self._log is not None:
            self._log.write(json.dumps({"step": step, "epoch": epoch, **row}) + "\n")
            self._log.flush()
        if self._writer is not None:
            for name, value in values.items():
                if math.isfinite(value):
                    self._writer.add_scalar(prefix + name, value, step)
            self._writer.flush()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        if self._log is not None:
            self._log.close()
        if self._writer is not None:
            self._writer.close()


def _step_of(line: str) -> int:
    """The step of a row of the log; a row that a crash cut off counts as later than all."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return 2**62


@dataclass
class StopRequest:
    """Whether someone asked the run to stop: by Ctrl-C, or by a signal to terminate."""

    received: bool = False


@contextmanager
def stop_on_signals(*, second_interrupts: bool = True) -> Iterator[StopRequest]:
    """Note signals to stop, so that the training loop can end after its step.

    Outside the main thread, signals do what they did before.

    Args:
        second_interrupts: a second Ctrl-C raises KeyboardInterrupt at once.
    """
    request = StopRequest()

    def receive(number: int) -> None:
        if request.received and second_interrupts and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.received = True

    with handling_signals(receive):
        yield request
