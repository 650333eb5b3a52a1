"""The salient frame proposal (SFP, section 3.3 of the LGDN paper): finds the frames that show a text.

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
        InputError: the strategy is unknown.
    """
    if strategy not in STRATEGIES:
        raise InputError(f"unknown salience strategy {strategy!r}: use one of {', '.join(STRATEGIES)}")
    return 2 * dim if strategy in ("momentum", "crossmom") else dim


def frame_salience(strategy: str, online: Tensor, momentum: Tensor) -> Tensor:
    """A frame's salience vector: its dot product with `text_salience` is the relevance of Table 1.

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
    """A text's salience vector; see `frame_salience`. Shapes l and l̂ [..., D] → [..., S]."""
    salience_dim(strategy, 0)
    if strategy == "simdot":
        return online
    return online + momentum if strategy == "collaborative" else torch.cat((online, momentum), -1)


def select_salient_tensor(relevance: Tensor, mask: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` most relevant real frames of each row, best first; of equal ones the earlier.

    `model.runtime.ranking.select_salient` is the same rule over arrays, for serving.

    Shapes relevance [B, N], mask [B, N] (nonzero for real frames) → indices int64 [B, n] and which of them
    are real bool [B, n], n = min(count, N).

    Raises:
        InputError: `count` is below 1.
    """
    if count < 1:
        raise InputError(f"{count} salient frames: choose 1 or more")
    real = mask > 0
    masked = relevance.masked_fill(~real, float("-inf"))
    index = masked.sort(dim=1, descending=True, stable=True).indices[:, :count]
    return index, real.gather(1, index)


def salient_mask(index: Tensor, real: Tensor, frames: int) -> Tensor:
    """The answer of `select_salient_tensor` as a mask. Shapes [B, n], [B, n] → bool [B, N]."""
    return torch.zeros(len(index), frames, dtype=torch.bool, device=index.device).scatter(1, index, real)
