"""Tensors that several training processes exchange. With one process, nothing is exchanged.

How the processes meet and wait for each other is in `model.processes`.

A tensor that is gathered has the same shape on every rank.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


def world() -> int:
    """The number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process among them, from 0."""
    return dist.get_rank() if world() > 1 else 0


def gather(x: Tensor) -> Tensor:
    """The rows of all ranks, in the order of ranks, without a gradient. Shape [B, …] → [world · B, …]."""
    x = x.detach().contiguous()
    if world() == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(world())]
    dist.all_gather(parts, x)
    return torch.cat(parts)


def gather_with_grad(x: Tensor) -> Tensor:
    """As `gather`, but the gradients of all ranks flow back to the rank that a row came from."""
    if world() == 1:
        return x
    gathered: Tensor = _Gather.apply(x)  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    """`gather`, whose backward pass sums the gradients that all ranks have for this rank's rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        return gather(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        summed = gradients[0].contiguous().clone()
        dist.all_reduce(summed)
        first = rank() * ctx.rows
        return summed[first : first + ctx.rows]


def total(value: int, device: torch.device) -> int:
    """The sum over all ranks."""
    if world() == 1:
        return value
    x = torch.tensor(value, device=device)
    dist.all_reduce(x)
    return int(x)


def longest(length: int, device: torch.device) -> int:
    """The largest value of any rank."""
    if world() == 1:
        return length
    x = torch.tensor(length, device=device)
    dist.all_reduce(x, dist.ReduceOp.MAX)
    return int(x)


def mean(value: Tensor) -> float:
    """The mean of a scalar over all ranks."""
    if world() == 1:
        return float(value)
    summed = value.detach().clone()
    dist.all_reduce(summed)
    return float(summed) / world()


def mean_of(losses: Tensor) -> Tensor:
    """This rank's loss, scaled so that the average over the ranks is the mean over the rows of all ranks.

    Shape [B] → scalar; B may differ between ranks, and be 0.
    """
    return losses.sum() * (world() / max(1, total(len(losses), losses.device)))


def pad_second(x: Tensor, length: int) -> Tensor:
    """Pad the second axis with zeros to `length`. Shape [B, L, …] → [B, length, …]."""
    missing = length - x.shape[1]
    return x if not missing else F.pad(x, [0, 0] * (x.ndim - 2) + [0, missing])
