"""Training: one visible loop, checkpoints, exact resume.

A run's folder holds `config.yaml`, `log.jsonl` (a line every few steps and one an epoch), `last.pt` (all that
resuming needs), `start.pt` and `best.pt` (the weights before training, and those best in validation).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from model.closed_form import start_projections
from model.config import Config, essentials, to_mapping
from model.data import CaptionedPhotos, ViewCache, batches, build_cache, read_captions, steps_per_epoch
from model.evaluate import TowersEncoder, evaluate_photos
from model.lgdn import LGDN, Batch
from model.losses import mvcl, retention
from model.runtime.preprocess import TextTokenizer
from model.weights import class_names, load_published, tokenizer_path


@dataclass
class Run:
    """What a training run holds in memory; `step` counts optimiser steps over all epochs."""

    config: Config
    model: LGDN
    optimizer: torch.optim.Optimizer
    tokenizer: TextTokenizer
    photos: CaptionedPhotos
    cache: ViewCache
    folder: Path
    report: Callable[[str], None]
    step: int = 0
    best: float = -1.0

    @property
    def steps(self) -> int:
        """Steps an epoch."""
        return steps_per_epoch(len(self.photos), self.config.train.batch_size)


def make_optimizer(model: LGDN, config: Config) -> torch.optim.AdamW:
    """AdamW with a learning rate for each part; biases and norms do not decay."""
    online, rates = model.online, config.train
    parts: list[tuple[float, Iterable[torch.nn.Parameter]]] = [
        (rates.lr_image, online.image.parameters()),
        (rates.lr_text, online.text.parameters()),
        (rates.lr_head, online.frame_projection.parameters()),
        (rates.lr_head, online.text_projection.parameters()),
        (rates.lr_head, online.temporal.parameters()),
        (rates.lr_image, online.classifier.parameters() if online.classifier else []),
        (rates.lr_head, online.class_projection.parameters() if online.class_projection else []),
        (rates.lr_head, [model.log_temperature]),
    ]
    groups: list[dict[str, Any]] = []
    for lr, parameters in parts:
        trained = [p for p in parameters if p.requires_grad]
        for decay, chosen in (
            (rates.weight_decay, [p for p in trained if p.ndim > 1]),
            (0.0, [p for p in trained if p.ndim <= 1]),
        ):
            if chosen:
                groups.append({"params": chosen, "lr": lr, "peak": lr, "weight_decay": decay})
    return torch.optim.AdamW(groups, betas=(0.9, 0.98))


def learning_rate_share(step: int, total: int, warmup: float, final: float) -> float:
    """Linear warm-up, then a cosine from 1 to `final`."""
    ramp = max(1, round(total * warmup))
    if step < ramp:
        return (step + 1) / ramp
    progress = (step - ramp) / max(1, total - ramp)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def start(config: Config, report: Callable[[str], None], tokenizer_file: Path | None = None) -> Run:
    """Build everything, and continue from `last.pt` where there is one.

    Raises:
        ValueError: missing data or packages, or a checkpoint of another configuration.
    """
    if not config.data.path:
        raise ValueError("no training data: pass data=DIR, a folder with captions.csv and images/")
    torch.set_num_threads(config.train.threads)
    torch.manual_seed(config.train.seed)
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    photos = read_captions(Path(config.data.path), "train")
    tokenizer = TextTokenizer.from_file(
        tokenizer_file or tokenizer_path(config.model), config.model.context_length
    )
    model = LGDN(config.model)
    classifier = load_published(model)
    cache_folder = Path(config.data.cache) if config.data.cache else folder / "cache"
    cache = build_cache(cache_folder, photos, model.online, classifier, config, report)
    model.online.image.to(memory_format=torch.channels_last)
    model.momentum.image.to(memory_format=torch.channels_last)
    run = Run(config, model, make_optimizer(model, config), tokenizer, photos, cache, folder, report)
    last = folder / "last.pt"
    if last.exists():
        resume(run, last)
    else:
        (folder / "config.yaml").write_text(yaml.safe_dump(to_mapping(config)), encoding="utf-8")
        if config.train.closed_form_start:
            report("closed-form start of the projections")
            start_projections(model, cache, photos, tokenizer, class_names(config.model), config.train)
        save(run, "start.pt")
    return run


def resume(run: Run, path: Path) -> None:
    """Restore weights, banks, optimiser, step and random state.

    Raises:
        ValueError: when the checkpoint was written with other settings.
    """
    state = torch.load(path, weights_only=True)
    if essentials(state["config"]) != essentials(to_mapping(run.config)):
        raise ValueError(f"{path} belongs to other settings: choose another output=DIR or delete it")
    run.model.load_state_dict(state["model"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.step, run.best = state["step"], state["best"]
    torch.set_rng_state(state["random"])
    run.report(f"resumed {path} at step {run.step}")


def save(run: Run, name: str = "last.pt") -> None:
    """Write a checkpoint beside its final name, then rename it."""
    state = {
        "config": to_mapping(run.config),
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "step": run.step,
        "best": run.best,
        "random": torch.get_rng_state(),
    }
    if name != "last.pt":
        del state["optimizer"], state["random"]
    partial = run.folder / f"{name}.partial"
    torch.save(state, partial)
    partial.replace(run.folder / name)


def compute_losses(run: Run, batch: Batch) -> dict[str, Tensor]:
    """Forward pass, losses, and then the batch's momentum embeddings into the banks.

    Returns:
        named losses; `total` is what is minimised.
    """
    model, weights = run.model, run.config.loss
    with torch.autocast("cpu", torch.bfloat16, enabled=run.config.train.precision == "bfloat16"):
        out = model(batch)
    negatives = model.bank.negatives()
    if weights.batch_negatives:
        negatives = negatives.join(out["video_momentum"], out["text_momentum"], batch.video_ids)
    losses = mvcl(
        out["video"],
        out["text"],
        out["video_momentum"],
        out["text_momentum"],
        batch.video_ids,
        negatives,
        model.temperature,
    )
    total = losses["mvcl"]
    if batch.teacher is not None:
        losses["retention"] = retention(out["class_logits"], batch.teacher)
        total = total + weights.retention_weight * losses["retention"]
    model.bank.enqueue(out["video_momentum"], out["text_momentum"], batch.video_ids)
    return losses | {"total": total}


def train_step(run: Run, batch: Batch) -> dict[str, float]:
    """One optimiser step; returns the named losses and the gradient's norm.

    Raises:
        FloatingPointError: when the loss or the gradient is not finite, with the losses.
    """
    rates = run.config.train
    share = learning_rate_share(run.step, rates.epochs * run.steps, rates.warmup, rates.final_lr)
    for group in run.optimizer.param_groups:
        group["lr"] = group["peak"] * share
    losses = compute_losses(run, batch)
    losses["total"].backward()
    trained = [p for group in run.optimizer.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(trained, rates.clip)
    values = {name: float(value.detach()) for name, value in losses.items()}
    values["gradient"] = float(norm)
    if not all(math.isfinite(value) for value in values.values()):
        raise FloatingPointError(
            f"step {run.step}: {values} is not finite; lower train.lr_image and train.lr_text, or set "
            f"train.precision=float32, and resume from {run.folder / 'last.pt'}"
        )
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    run.model.update_momentum()
    run.step += 1
    return values


def train(run: Run, stop_at: int | None = None) -> None:
    """Run all epochs, or until step `stop_at`."""
    config, folder = run.config, run.folder
    rates = config.train
    validation = read_captions(Path(config.data.path), "val") if rates.evaluate else None
    total = rates.epochs * run.steps
    began, first, saved = time.monotonic(), run.step, time.monotonic()
    run.model.train()
    with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
        while run.step < total:
            epoch, done = divmod(run.step, run.steps)
            classes = config.model.classes if config.loss.retention_weight > 0 else 0
            for batch in batches(run.cache, run.photos, run.tokenizer, config, epoch, done, classes):
                values = train_step(run, batch)
                if run.step % rates.log_every == 0 or run.step == total:
                    left = (time.monotonic() - began) / (run.step - first) * (total - run.step)
                    log.write(json.dumps({"step": run.step, "epoch": epoch, **values}) + "\n")
                    log.flush()
                    words = " ".join(f"{name} {value:.3f}" for name, value in values.items())
                    run.report(f"step {run.step}/{total} {words} · {left / 60:.0f} min left")
                if time.monotonic() - saved > rates.checkpoint_seconds:
                    save(run)
                    saved = time.monotonic()
                if stop_at is not None and run.step >= stop_at:
                    save(run)
                    return
            if validation is not None:
                encoder = TowersEncoder(run.model.momentum, run.tokenizer, rates.precision == "bfloat16")
                metrics = evaluate_photos(encoder, validation)
                t2v = metrics["text_to_video"]
                score = t2v["R@1"] + t2v["R@5"] + t2v["R@10"]
                log.write(json.dumps({"step": run.step, "epoch": epoch, "validation": metrics}) + "\n")
                log.flush()
                run.report(
                    f"epoch {epoch + 1}/{rates.epochs}: validation, text to photo "
                    + " ".join(f"{name} {value:.1f}" for name, value in t2v.items())
                )
                if score > run.best:
                    run.best = score
                    save(run, "best.pt")
                run.model.train()
            save(run)
            saved = time.monotonic()
