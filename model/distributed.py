"""What several training processes exchange; every function is trivial in a single one.

Tensors keep the same shape on every rank, but for the first axis of those that are gathered.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.nn import functional as differentiable


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is."""
    return dist.get_rank() if world() > 1 else 0


@contextmanager
def first_before_others() -> Iterator[None]:
    """The first process runs the block alone, then all others do: they find the files that it has written."""
    if rank():
        dist.barrier()
    yield
    if world() > 1 and not rank():
        dist.barrier()


def gather(x: Tensor) -> Tensor:
    """All ranks' rows in the order of ranks, without a gradient. Shape [B, …] → [world · B, …]."""
    x = x.detach().contiguous()
    if world() == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(world())]
    dist.all_gather(parts, x)
    return torch.cat(parts)


def gather_with_grad(x: Tensor) -> Tensor:
    """As `gather`; the gradients of all ranks flow back to the rows' own rank."""
    if world() == 1:
        return x
    parts = differentiable.all_gather(x.contiguous())  # type: ignore[no-untyped-call]
    return torch.cat(parts)


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


def mean_of(losses: Tensor) -> Tensor:
    """The share of this rank in the mean over all ranks' rows, such that the ranks' average is that mean.

    Shape [B] → scalar; B may differ between ranks, and be 0.
    """
    return losses.sum() * (world() / max(1, total(len(losses), losses.device)))


def pad_second(x: Tensor, length: int) -> Tensor:
    """Zeros up to `length` along the second axis. Shape [B, L, …] → [B, length, …]."""
    missing = length - x.shape[1]
    return x if not missing else F.pad(x, [0, 0] * (x.ndim - 2) + [0, missing])
