"""Training: one visible loop over `Objective`, in one process or in each of several.

Everything that is drawn follows from the seed, the step and the process, so a resumed run equals one that was
not interrupted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import yaml
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from model import distributed
from model.backbones import with_shapes
from model.config import Config, to_mapping
from model.data.loaders import (
    CaptionedPhotos,
    Loader,
    PhotoLoader,
    VideoLoader,
    VideoSource,
    ahead,
    read_captions,
)
from model.data.record import describe_data
from model.data.view_cache import build_cache
from model.evaluation.corpus import TokenOptions, encode_source
from model.evaluation.encoders import TowersEncoder
from model.families.lgdn.closed_form import start_projections
from model.families.lgdn.network import LGDN, Batch
from model.families.lgdn.objective import Objective
from model.families.lgdn.weights import (
    class_names,
    keep_tokenizer,
    load_published,
    load_start,
    tokenizer_path,
)
from model.runtime.errors import ReelfindError
from model.runtime.preprocessing import TextTokenizer
from model.training.checkpoints import read_state
from model.training.monitor import Monitor, StopRequest
from model.training.run import Run, choose_device, learning_rate_share, make_optimizer, resume, save
from model.training.validate import recall_sum, validate

__all__ = ["Run", "start", "train", "train_step"]

#: steps in a row that float16 may leave out while its scale settles
_MOST_SKIPPED = 40


class NotFiniteError(ReelfindError, FloatingPointError):
    """A loss or the gradient is not finite: training cannot go on with these settings."""


def start(config: Config, report: Callable[[str], None], tokenizer_file: Path | None = None) -> Run:
    """Build everything, and continue from `last.pt` where there is one.

    Raises:
        ValueError: missing data or packages, or a checkpoint of another configuration.
    """
    rank, world = distributed.rank(), distributed.world()
    photos_wanted = config.data.kind == "photos"
    if photos_wanted and not config.data.path:
        raise ValueError("no training data: pass data=DIR, a folder with captions.csv and images/")
    device = choose_device(config.train.device, rank)
    if config.train.precision == "float16" and device.type == "cpu":
        raise ValueError("train.precision=float16 needs a GPU: use bfloat16 or float32 on a CPU")
    torch.set_num_threads(max(1, config.train.threads // world))
    torch.manual_seed(config.train.seed)
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    config = replace(config, model=with_shapes(config.model))
    tokenizer_file = tokenizer_file or tokenizer_path(config.model, folder)
    tokenizer = TextTokenizer.from_file(tokenizer_file, config.model.context_length)
    model = LGDN(config.model)
    classifier = load_published(model)
    start_state = None
    if config.train.start_from:
        load_start(model, Path(config.train.start_from))
        start_state = read_state(Path(config.train.start_from))
    loader: Loader
    validation: CaptionedPhotos | VideoSource | None
    if photos_wanted:
        photos = read_captions(Path(config.data.path), "train").first(config.data.limit)
        validation = read_captions(Path(config.data.path), "val") if config.train.evaluate else None
        captions: Sequence[Sequence[str]] = photos.captions
        cache_folder = Path(config.data.cache) if config.data.cache else folder / "cache"
        if rank:  # the first process fills the cache
            dist.barrier()
        cache = build_cache(cache_folder, photos, model.online.image, classifier, config, report)
        if world > 1 and not rank:
            dist.barrier()
        classes = config.model.classes if config.loss.retention_weight > 0 else 0
        loader = PhotoLoader(cache, photos, tokenizer, config, classes, rank, world)
    else:
        from model.data.datasets import open_dataset

        source = open_dataset(config, "train", report)
        validation = open_dataset(config, "val", report) if config.train.evaluate else None
        loader = VideoLoader(source, tokenizer, config, rank, world)
        captions = source.captions
    if loader.steps < config.train.accumulate:
        raise ValueError(
            f"train.accumulate={config.train.accumulate} is more than an epoch's {loader.steps} batches: "
            "lower it, or train.batch_size"
        )
    for towers in (model.online, model.momentum):
        towers.image.channels_last()
    last = folder / "last.pt"
    closed_form = config.train.closed_form_start and not config.train.start_from
    if not last.exists() and photos_wanted and closed_form and not rank:
        report("closed-form start of the projections")
        start_projections(model, cache, photos, tokenizer, class_names(config.model), config.train)
    model.to(device)
    objective: nn.Module = Objective(model, config.loss, config.train.seed)
    if world > 1:
        # A group of its own: gradients travel while the losses' exchanges are still under way. Banks stay
        # equal by themselves; a loss that is off, or the warm-up, leaves weights unused.
        objective = DistributedDataParallel(
            objective,
            device_ids=[device] if device.type == "cuda" else None,
            process_group=dist.new_group(),
            broadcast_buffers=False,
            find_unused_parameters=True,
        )
    run = Run(
        config=config,
        model=model,
        objective=objective,
        optimizer=make_optimizer(model, config),
        scaler=torch.amp.GradScaler(device.type, enabled=config.train.precision == "float16"),
        tokenizer=tokenizer,
        loader=loader,
        validation=validation,
        device=device,
        folder=folder,
        report=report,
        data=describe_data(config, captions, start_state),
        rank=rank,
        world=world,
    )
    if last.exists():
        resume(run, last)
    elif not rank:
        keep_tokenizer(tokenizer_file, folder)
        (folder / "config.yaml").write_text(yaml.safe_dump(to_mapping(config)), encoding="utf-8")
        save(run, "start.pt")
    return run


def train_step(run: Run, batches: Sequence[Batch]) -> dict[str, float]:
    """One optimiser step over `train.accumulate` batches; returns the mean losses and the gradient's norm.

    Each batch finds the momentum embeddings of those before it in the banks; one larger batch would not.

    Raises:
        NotFiniteError: a loss or the gradient is not finite; names losses, step and batch.
    """
    rates, losses = run.config.train, run.config.loss
    epoch, place = divmod(run.step, run.steps)
    sfp = losses.sfp and epoch >= losses.warmup_epochs
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
                values = run.objective(batch.to(run.device), number, sfp)
            run.scaler.scale(values["total"] / len(batches)).backward()
        names = list(values)
        row = torch.stack([value.detach().float() for value in values.values()]) / len(batches)
        sums = row if not i else sums + row
    run.scaler.unscale_(run.optimizer)
    trained = [p for group in run.optimizer.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(trained, rates.clip)
    if run.world > 1:
        dist.all_reduce(sums)
        sums = sums / run.world
    means = dict(zip([*names, "gradient"], [*sums.tolist(), float(norm)], strict=True))
    _check(run, means, epoch, place)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.optimizer.zero_grad(set_to_none=True)
    run.model.update_momentum()
    run.step += 1
    return means


def _check(run: Run, values: dict[str, float], epoch: int, place: int) -> None:
    """Stop on what is not finite; float16 may lose some steps while its scale settles."""
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad == ["gradient"] and run.scaler.is_enabled() and run.skipped < _MOST_SKIPPED:
        run.skipped += 1
        return
    if bad:
        accumulate = run.config.train.accumulate
        numbers = ", ".join(str(place * accumulate + i) for i in range(accumulate))
        words = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        last = run.folder / "last.pt"
        way_on = f"the same command goes on from {last}" if last.exists() else "no step was saved before"
        raise NotFiniteError(
            f"step {run.step} (epoch {epoch + 1}, batch {numbers}): {', '.join(bad)} not finite ({words}); "
            "lower train.lr_image, train.lr_text and train.lr_head, or set train.precision=float32, with "
            f"another output=DIR; {way_on}"
        )
    run.skipped = 0


def train(run: Run, stop_at: int | None = None) -> None:
    """Run all epochs, or until step `stop_at`.

    Raises:
        NotFiniteError: as `train_step`; `last.pt` stays as it was.
        KeyboardInterrupt: after Ctrl-C or a request to terminate, with the last step in `last.pt`.
    """
    rates = run.config.train
    saved = time.monotonic()
    monitor = Monitor(None if run.rank else run.folder, run.step, run.total, rates.tensorboard, run.report)
    with monitor, StopRequest(impatient=run.world == 1) as stop:
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
                    if _any(run, stop.wanted):
                        save(run)
                        run.report(f"stopped after step {run.step}, saved in {run.folder}/last.pt")
                        if run.world > 1:
                            dist.barrier()  # none ends before the first has saved
                        raise KeyboardInterrupt
                    if stop_at is not None and run.step >= stop_at:
                        save(run)
                        return
                    if time.monotonic() - saved > rates.checkpoint_seconds:
                        save(run)
                        saved = time.monotonic()
            if run.validation is not None:
                metrics = check(run)
                monitor.validation(run.step, epoch, metrics)
            save(run)
            saved = time.monotonic()


def check(run: Run) -> dict[str, Any]:
    """Validate in the first process, and keep the best weights as `best.pt`."""
    metrics: dict[str, Any] = {}
    if not run.rank and run.validation is not None:
        encoder = TowersEncoder(run.model, run.tokenizer, bfloat16=run.config.train.precision == "bfloat16")
        corpus = encode_source(encoder, run.validation, TokenOptions())
        metrics = validate(encoder, run.validation.captions, corpus)
        for name, row in metrics.items():
            run.report(
                f"epoch {run.step // run.steps}/{run.config.train.epochs}: validation, {name} "
                + " ".join(f"{key} {value:.4g}" for key, value in row.items())
            )
        score = recall_sum(metrics["ensemble" if run.config.loss.lsfm else "global"])
        if score > run.best:
            run.best = score
            save(run, "best.pt")
    if run.world > 1:
        dist.barrier()
    return metrics


def _any(run: Run, wanted: bool) -> bool:
    """Whether any process was asked to stop: all must leave the loop after the same step."""
    if run.world == 1:
        return wanted
    flag = torch.tensor(float(wanted), device=run.device)
    dist.all_reduce(flag)
    return bool(flag)
