"""Trains a moment head on films that are spliced in the space of embeddings."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.families.moment_head.films import FilmBatch, Splicer
from model.families.moment_head.losses import moment_losses
from model.families.moment_head.network import FilmMomentHead, MomentHeadConfig
from model.progress import Progress, Report, silent
from model.runtime.errors import InputError

# Batches that are drawn together, and sorted by length.
_GROUPS = 8


@dataclass(frozen=True)
class HeadTraining:
    """How a head is trained.

    Attributes:
        steps: batches.
        batch_size: queries of a batch.
        learning_rate: the highest one, after the warm-up.
        warmup: steps until then; a cosine to 0 follows.
        weight_decay: of AdamW.
        clip: longest gradient.
        rejection_weight: weight of the loss of frames that are part of no answer.
        film_weight: weight of the loss of films without an answer.
        seed: decides the weights at the start, and the films.

    Raises:
        InputError: a value is out of its range.
    """

    steps: int = 400
    batch_size: int = 32
    learning_rate: float = 2e-3
    warmup: int = 50
    weight_decay: float = 0.02
    clip: float = 1.0
    rejection_weight: float = 1.0
    film_weight: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: it must be at least 1", name)
        for name in ("learning_rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} is {getattr(self, name)}: it must be above 0", name)
        for name in ("warmup", "weight_decay", "rejection_weight", "film_weight", "seed"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} is {getattr(self, name)}: it must be 0 or more", name)


def train_head(
    splicer: Splicer, config: MomentHeadConfig, training: HeadTraining, report: Report = silent
) -> FilmMomentHead:
    """Train a new head. The same settings give the same head on one machine.

    Args:
        splicer: makes the films.
        config: the sizes of the head.
        training: how to train.
        report: told of progress and of the losses.

    Returns:
        the head, in evaluation mode.

    Raises:
        InputError: the loss is not finite.
    """
    rng = np.random.default_rng(training.seed)
    with torch.random.fork_rng():
        torch.manual_seed(training.seed)
        model = FilmMomentHead(config).train()
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
        )
        progress = Progress("steps", training.steps, report)
        losses: dict[str, float] = {}
        for step, batch in zip(range(training.steps), _stream(splicer, training, rng), strict=False):
            for group in optimizer.param_groups:
                group["lr"] = training.learning_rate * _share(step, training)
            values = _step(model, optimizer, batch, training)
            losses = {name: 0.95 * losses.get(name, value) + 0.05 * value for name, value in values.items()}
            progress.step()
            if (step + 1) % 200 == 0 or step + 1 == training.steps:
                figures = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
                report(f"step {step + 1}: {figures}")
    return model.eval()


def _stream(splicer: Splicer, training: HeadTraining, rng: np.random.Generator) -> Iterator[FilmBatch]:
    groups = min(_GROUPS, training.steps)
    while True:
        yield from splicer.batches(training.batch_size, groups, rng)


def _share(step: int, training: HeadTraining) -> float:
    """The learning rate of a step as a share of the highest: a linear warm-up times a cosine to 0."""
    warmup = min(1.0, (step + 1) / training.warmup) if training.warmup else 1.0
    return warmup * (0.5 + 0.5 * math.cos(math.pi * step / training.steps))


def _step(
    model: FilmMomentHead, optimizer: torch.optim.AdamW, batch: FilmBatch, training: HeadTraining
) -> dict[str, float]:
    text, frames, mask, start, end = (
        torch.from_numpy(value) for value in (batch.text, batch.frames, batch.mask, batch.start, batch.end)
    )
    logits: tuple[Tensor, Tensor, Tensor] = model(text, frames, mask)
    losses = moment_losses(
        *logits,
        start,
        end,
        mask,
        rejection_weight=training.rejection_weight,
        film_weight=training.film_weight,
    )
    values = {name: float(value.detach()) for name, value in losses.items()}
    if not math.isfinite(values["total"]):
        raise InputError("the loss is not finite: lower learning_rate", "learning_rate")
    optimizer.zero_grad(set_to_none=True)
    losses["total"].backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip)
    optimizer.step()
    return values
