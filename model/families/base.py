"""What every family of models gives: so far the ONNX graphs that a bundle is made of."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Graph:
    """One graph: its module, names, example inputs, dynamic axes, and inputs of other sizes for the check."""

    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    example: tuple[Tensor, ...]
    dynamic: tuple[dict[int, str], ...]
    others: tuple[tuple[Tensor, ...], ...] = ()
