"""Pooling of several vectors to one."""

from __future__ import annotations

from torch import Tensor


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over the second axis where `mask` is 1; zeros if it is 0 everywhere.

    Shapes x [B, N, H], mask [B, N] → [B, H].
    """
    weight = mask[:, :, None].to(x.dtype)
    return (x * weight).sum(1) / weight.sum(1).clamp_min(1.0)
