"""The training loop over a family's objective, in one process or in each of several.

Every random draw follows from the seed, the step and the process, so a resumed run equals one that was not
interrupted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

from model import processes
from model.data.loaders import ahead
from model.families.base import Batch
from model.runtime.errors import ReelfindError
from model.training.checkpoints import save_checkpoint
from model.training.monitor import Monitor, stop_on_signals
from model.training.run import Run, learning_rate_share

#: steps in a row that float16 may skip while its scale settles
_MOST_SKIPPED = 40


class LossNotFiniteError(ReelfindError, FloatingPointError):
    """A loss or the gradient is not finite: training cannot continue with these settings."""


def train_step(run: Run, batches: Sequence[Batch]) -> dict[str, float]:
    """Take one optimiser step over `train.accumulate` batches.

    Several batches are not quite one larger batch: with memory banks, each finds the batches before in them.

    Returns:
        the mean losses, and the norm of the gradient before clipping as `gradient`.

    Raises:
        LossNotFiniteError: a loss or the gradient is not finite; the message names losses, step and batch.
    """
    rates = run.config.train
    epoch, place = divmod(run.step, run.steps)
    share = learning_rate_share(run.step, run.total, rates.warmup, rates.final_lr)
    for group in run.optimizer.param_groups:
        group["lr"] = group["peak"] * share
    names: list[str] = []
    sums = torch.zeros(0)
    for i, batch in enumerate(batches):
        number = run.step * rates.accumulate + i
        # Dropout follows from the seed, the batch and the process, so that resuming needs no random state.
        torch.manual_seed(((rates.seed * 1_000_003 + number) * 1024 + run.rank) % 2**63)
        alone = run.world == 1 or i == len(batches) - 1
        with nullcontext() if alone else run.objective.no_sync():  # type: ignore[operator]
            with run.autocast():
                values = run.objective(batch.to(run.device), number, epoch)
            run.scaler.scale(values["total"] / len(batches)).backward()
        names = list(values)
        row = torch.stack([value.detach().float() for value in values.values()]) / len(batches)
        sums = row if not i else sums + row
    run.scaler.unscale_(run.optimizer)
    trained = [p for group in run.optimizer.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(trained, rates.clip or math.inf)
    if run.world > 1:
        dist.all_reduce(sums)
        sums = sums / run.world
    means = dict(zip([*names, "gradient"], [*sums.tolist(), float(norm)], strict=True))
    _check(run, means, epoch, place)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.optimizer.zero_grad(set_to_none=True)
    run.family.after_step(run.model)
    run.step += 1
    return means


def _check(run: Run, values: dict[str, float], epoch: int, place: int) -> None:
    """Raise LossNotFiniteError if a value is not finite. float16 may skip steps while its scale settles."""
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad == ["gradient"] and run.scaler.is_enabled() and run.skipped < _MOST_SKIPPED:
        run.skipped += 1
        return
    if bad:
        accumulate = run.config.train.accumulate
        numbers = ", ".join(str(place * accumulate + i) for i in range(accumulate))
        figures = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        last = run.folder / "last.pt"
        remedy = f"the same command resumes from {last}" if last.exists() else "no step was saved before"
        raise LossNotFiniteError(
            f"step {run.step} (epoch {epoch + 1}, batch {numbers}): {', '.join(bad)} not finite ({figures}); "
            "lower train.lr_image, train.lr_text and train.lr_head, or set train.precision=float32, with "
            f"another output=DIR; {remedy}"
        )
    run.skipped = 0


def train(run: Run, stop_at: int | None = None) -> None:
    """Train all epochs, or until step `stop_at`.

    Raises:
        LossNotFiniteError: as `train_step`; `last.pt` stays as it was.
        KeyboardInterrupt: Ctrl-C, or a signal to terminate; `last.pt` holds the last step.
    """
    rates = run.config.train
    saved = time.monotonic()
    monitor = Monitor(None if run.rank else run.folder, run.step, run.total, rates.tensorboard, run.report)
    with monitor, stop_on_signals(second_interrupts=processes.current() is None) as stop:
        while run.step < run.total:
            epoch, done = divmod(run.step, run.steps)
            numbers = range(done * rates.accumulate, run.steps * rates.accumulate)
            run.objective.train()
            make = partial(run.loader.make, epoch)
            with closing(ahead(make, numbers, run.config.data.workers)) as stream:
                for _ in range(done, run.steps):
                    values = train_step(run, [next(stream) for _ in range(rates.accumulate)])
                    if run.step % rates.log_every == 0 or run.step == run.total:
                        monitor.step(run.step, epoch, values)
                    if _any_process(run, stop.received):
                        save_checkpoint(run)
                        run.report(f"stopped after step {run.step}, saved in {run.folder}/last.pt")
                        processes.wait_for_all()  # none ends before the first has saved
                        raise KeyboardInterrupt
                    if stop_at is not None and run.step >= stop_at:
                        save_checkpoint(run)
                        return
                    if time.monotonic() - saved > rates.checkpoint_seconds:
                        save_checkpoint(run)
                        saved = time.monotonic()
            if run.config.validates:
                monitor.validation(run.step, epoch, check(run))
            save_checkpoint(run)
            saved = time.monotonic()


def check(run: Run) -> Mapping[str, Any]:
    """Validate, and save the best weights so far as `best.pt`.

    Returns:
        the metrics; empty in all processes but the first.
    """
    validation = run.study.validate(run)
    metrics: Mapping[str, Any] = {}
    if validation is not None:
        metrics = validation.metrics
        for name, row in metrics.items():
            run.report(
                f"epoch {run.step // run.steps}/{run.config.train.epochs}: validation, {name} "
                + " ".join(f"{key} {value:.4g}" for key, value in row.items())
            )
        if validation.score > run.best:
            run.best = validation.score
            save_checkpoint(run, "best.pt")
    processes.wait_for_all()
    return metrics


def _any_process(run: Run, stop: bool) -> bool:
    """Whether any process was asked to stop, since all must leave the loop after the same step."""
    if run.world == 1:
        return stop
    flag = torch.tensor(float(stop), device=run.device)
    dist.all_reduce(flag)
    return bool(flag)
