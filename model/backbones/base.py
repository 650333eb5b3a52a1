"""Interfaces of the image encoder and of the text encoder.

Shapes: B batch, F packed frames, P tokens a frame, L text tokens, Hv and Ht the encoders' own widths.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn


class ImageBackbone(nn.Module, ABC):
    """The frame encoder f^e before its projections."""

    #: Hv
    width: int

    @abstractmethod
    def prepare(self, frames: Tensor) -> Tensor:
        """Normalise, and run the stages that never train; the result may be cached.

        Shape uint8 [F, h, w, 3] → float [F, C, h', w'].
        """

    @abstractmethod
    def forward(self, prepared: Tensor) -> tuple[Tensor, Tensor]:
        """Shape [F, C, h', w'] as prepared → pooled [F, Hv] and cells [F, P, Hv], both float32."""

    @abstractmethod
    def freeze(self) -> None:
        """Set `requires_grad` of every weight for training."""

    def channels_last(self) -> Self:
        """Lay weights out by channels, which doubles the speed of convolutions on a CPU; returns itself."""
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self


class TextBackbone(nn.Module, ABC):
    """The language encoder f^l before its projections."""

    #: Ht
    width: int
    #: number of token ids
    vocabulary: int
    #: learned positions, shape [longest text, Ht]
    positions: nn.Embedding
    #: its Transformer layers, without those handed over to the fusion
    layers: nn.ModuleList

    @abstractmethod
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes int64 [B, L] twice → tokens [B, L, Ht] and pooled [B, Ht], both float32."""

    @abstractmethod
    def freeze(self) -> None:
        """Set `requires_grad` of every weight for training."""

    @abstractmethod
    def trim(self, length: int) -> None:
        """Drop positions beyond `length`, which no text will reach."""

    @abstractmethod
    def load(self, source: Path) -> nn.ModuleList:
        """Load published weights.

        Returns:
            the top layers that this encoder leaves out, lowest first.

        Raises:
            InputError: `source` holds another network, or is damaged.
        """
