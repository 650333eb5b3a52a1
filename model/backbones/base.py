"""Interfaces of the image encoder and of the text encoder.

Shapes: B batch, F packed frames, P tokens a frame, L text tokens, Hv and Ht the encoders' own widths.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Self

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from model.backbones.bert import TextShape


class Layered(nn.Module, ABC):
    """A network of layers, one above the other."""

    #: name of its list of layers, the lowest first
    stack: ClassVar[str] = "layers"
    #: names of the parts below the lowest layer
    below: ClassVar[frozenset[str]] = frozenset()

    def layers_above(self, parameter: str) -> int:
        """How many layers stand above the one that holds a parameter; 0 for what follows the topmost.

        What stands below the lowest layer, such as embeddings, has all of them above it.
        """
        part, _, rest = parameter.partition(".")
        count = len(getattr(self, self.stack))
        if part == self.stack:
            return count - 1 - int(rest.partition(".")[0])
        return count if part in self.below else 0


class ImageBackbone(Layered):
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


class TextBackbone(Layered):
    """The language encoder f^l before its projections."""

    #: Ht
    width: int
    #: sizes of the whole network
    shape: TextShape
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

    def trim(self, length: int) -> None:
        """Drop positions beyond `length`, which no text will reach."""
        trimmed = nn.Embedding(min(length, self.positions.num_embeddings), self.width)
        trimmed.weight.data.copy_(self.positions.weight[: trimmed.num_embeddings])
        self.positions = trimmed
