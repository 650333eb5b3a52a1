"""The salient frame proposal (SFP, section 3.3 of the LGDN paper): which frames of a video show a text.

Shapes: B pairs, N frames, D joint space, S salience. Embeddings are L2-normalised.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.families.lgdn.config import STRATEGIES
from model.runtime.errors import InputError


def salience_dim(strategy: str, dim: int) -> int:
    """S: twice D where a strategy concatenates two embeddings.

    Raises:
        InputError: for an unknown strategy.
    """
    if strategy not in STRATEGIES:
        raise InputError(f"unknown salience strategy {strategy!r}: use one of {', '.join(STRATEGIES)}")
    return 2 * dim if strategy in ("momentum", "crossmom") else dim


def frame_salience(strategy: str, online: Tensor, momentum: Tensor) -> Tensor:
    """What is stored of a frame, so that a dot product with `text_salience` is a relevance of Table 1.

    Shapes f and f̂ [..., D] → [..., S].
    """
    salience_dim(strategy, 0)
    if strategy == "simdot":
        return online
    if strategy == "collaborative":
        return online + momentum
    pair = (online, momentum) if strategy == "momentum" else (momentum, online)
    return torch.cat(pair, -1)


def text_salience(strategy: str, online: Tensor, momentum: Tensor) -> Tensor:
    """The text's side of `frame_salience`. Shapes l and l̂ [..., D] → [..., S]."""
    salience_dim(strategy, 0)
    if strategy == "simdot":
        return online
    return online + momentum if strategy == "collaborative" else torch.cat((online, momentum), -1)


def select_salient_tensor(relevance: Tensor, mask: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` most relevant real frames of each row, best first.

    Shapes relevance [B, N], mask [B, N] (nonzero for real frames) → indices int64 [B, n] and which of them
    are real bool [B, n], n = min(count, N).

    Raises:
        InputError: when `count` is not positive.
    """
    if count < 1:
        raise InputError(f"{count} salient frames: choose 1 or more")
    real = mask > 0
    masked = relevance.masked_fill(~real, float("-inf"))
    # Stable: of equal frames the earlier one.
    index = masked.sort(dim=1, descending=True, stable=True).indices[:, :count]
    return index, real.gather(1, index)


def salient_mask(index: Tensor, real: Tensor, frames: int) -> Tensor:
    """`select_salient_tensor`'s answer as a mask. Shapes [B, n], [B, n] → bool [B, N]."""
    return torch.zeros(len(index), frames, dtype=torch.bool, device=index.device).scatter(1, index, real)
