"""A tiny LGDN that behaves like a trained one, and batches of everything that a batch can hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from model.families.lgdn.config import ModelConfig
from model.families.lgdn.network import LGDN, LGDNBatch
from model.training.run import Run

FRAMES, CLASSES, VOCABULARY = 4, 5, 128


def tiny_model_config(**changes: Any) -> ModelConfig:
    """Sizes that train in milliseconds; no dropout, so that every path can be compared."""
    config = ModelConfig(
        backbone="tiny",
        text="tiny",
        dim=16,
        frames=FRAMES,
        image_size=64,
        context_length=12,
        frozen_stages=0,
        classes=CLASSES,
        dropout=0.0,
        bank_size=8,
        momentum=0.9,
        fusion_dim=32,
    )
    return dataclasses.replace(config, **changes)


def tiny_model(**changes: Any) -> LGDN:
    """Frames and texts are far from one another, no weight is zero, and momentum differs from online."""
    torch.manual_seed(0)
    model = LGDN(tiny_model_config(**changes))
    with torch.no_grad():
        for parameter in [*model.online.parameters(), *model.fusion.parameters()]:
            parameter.add_(0.05 * torch.randn_like(parameter))
        model.reset_momentum()
        for parameter in [*model.momentum.parameters(), *model.fusion_average.parameters()]:
            parameter.add_(0.02 * torch.randn_like(parameter))
        for towers in (model.online, model.momentum):
            pooled, _ = towers.image(towers.image.prepare(random_frames(16, seed=99)))
            towers.frame_projection.weight *= 5
            towers.frame_projection.bias.copy_(-towers.frame_projection.weight @ pooled.mean(0))
    return model


def lgdn_of(run: Run) -> LGDN:
    """The model of a run that trains LGDN."""
    assert isinstance(run.model, LGDN)
    return run.model


def random_frames(count: int, seed: int) -> Tensor:
    """Frames of coarse colours. → uint8 [F, 64, 64, 3]"""
    generator = torch.Generator().manual_seed(seed)
    colour = torch.rand(count, 1, 1, 3, generator=generator) * 190
    blocks = colour + torch.rand(count, 4, 4, 3, generator=generator) * 65
    return blocks.repeat_interleave(16, 1).repeat_interleave(16, 2).to(torch.uint8)


def tiny_batch(
    video_ids: Sequence[int],
    *,
    seed: int = 0,
    length: int = 9,
    packed: int = 7,
    teacher: bool = True,
    taught: int = 0,
) -> LGDNBatch:
    """Ragged texts, ragged videos with gaps between their frames, frames that several videos show.

    The teacher says nothing of the first frame; another encoder, of width `taught`, has not seen the first
    two, and the last counts for another process. Masked slots and padding ids hold anything.
    """
    generator = torch.Generator().manual_seed(seed)
    count = len(video_ids)
    slots = torch.stack([torch.randperm(packed, generator=generator)[:FRAMES] for _ in range(count)])
    mask = (torch.rand(count, FRAMES, generator=generator) < 0.7).float()
    mask[torch.arange(count), torch.randint(0, FRAMES, (count,), generator=generator)] = 1.0
    lengths = torch.randint(2, length + 1, (count, 1), generator=generator)
    lengths[0] = length
    shares = torch.rand(packed, CLASSES, generator=generator)
    shares = shares / shares.sum(1, keepdim=True)
    shares[0] = 0
    embeddings = torch.randn(packed, max(1, taught), generator=torch.Generator().manual_seed(seed + 1))
    embeddings[:2] = 0
    return LGDNBatch(
        frames=random_frames(packed, seed),
        slots=slots,
        frame_mask=mask,
        input_ids=torch.randint(1, VOCABULARY, (count, length), generator=generator),
        attention_mask=(torch.arange(length) < lengths).long(),
        video_ids=torch.tensor(video_ids),
        teacher=shares if teacher else None,
        taught=embeddings if taught else None,
        counted=torch.arange(packed) < packed - 1 if taught else None,
    )
