"""The cross-modal Transformer, and the blocks that convert one modality into the other.

They read any two sequences of width d, so that other families can use them too.

Shapes: B videos, M feature vectors of a video, L text tokens, d width. Masks are 1 on real vectors and
tokens.
A sequence that was converted keeps the length and the mask of the one that it was made of.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.backbones.bert import TextLayer, TextShape

_NEGLIGIBLE = -10000.0
_VIDEO, _TEXT = 0, 1


@dataclass(frozen=True)
class ConverterShape:
    """The size of a converter. `positions` is the length of the longest sequence of either modality."""

    hidden: int
    heads: int
    intermediate: int
    positions: int
    cross_layers: int = 6
    mcb_layers: int = 2
    shared_mcb: bool = True
    target_masked: bool = False
    dropout: float = 0.1
    gradient_checkpointing: bool = False

    def layers(self, count: int) -> TextShape:
        """So many Transformer layers of this size."""
        return TextShape(
            hidden=self.hidden,
            heads=self.heads,
            intermediate=self.intermediate,
            layers=count,
            positions=self.positions,
        )


@dataclass(frozen=True)
class Converted:
    """What conversions make of e_v [B, M, d] and e_t [B, L, d].

    `once_v` is e'_v [B, L, d], which has the text's length and mask, and `once_t` is e'_t [B, M, d], which
    has the video's. `twice_v` is e″_v [B, M, d] and `twice_t` is e″_t [B, L, d]; None: not converted back.
    """

    once_v: Tensor
    once_t: Tensor
    twice_v: Tensor | None = None
    twice_t: Tensor | None = None


class TransformerStack(nn.Module):
    """Post-LN Transformer layers. A Modality Converting Block is one."""

    def __init__(self, shape: ConverterShape, count: int) -> None:
        super().__init__()
        sizes = shape.layers(count)
        self.dropout, self.gradient_checkpointing = shape.dropout, shape.gradient_checkpointing
        self.layers = nn.ModuleList(TextLayer(sizes) for _ in range(count))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Shapes x [B, S, d], bias broadcast to [B, heads, S, S] → [B, S, d]."""
        recompute = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
        for layer in self.layers:
            arguments = (x, bias, self.dropout)
            x = checkpoint(layer, *arguments, use_reentrant=False) if recompute else layer(*arguments)
        return x

    def convert(self, x: Tensor, mask: Tensor) -> Tensor:
        """Convert one sequence. Shapes [B, S, d], [B, S] → [B, S, d]."""
        out: Tensor = self(x, _key_bias(mask, x.dtype))
        return out


class CrossModalTransformer(nn.Module):
    """T_cross (FEEL, eq. 1): both sequences, one after the other, with positions of their own."""

    def __init__(self, shape: ConverterShape) -> None:
        super().__init__()
        self.dropout = shape.dropout
        self.positions = nn.Parameter(torch.randn(2, shape.positions, shape.hidden) * 0.02)
        self.modalities = nn.Parameter(torch.randn(2, shape.hidden) * 0.02)
        self.norm = nn.LayerNorm(shape.hidden)
        self.stack = TransformerStack(shape, shape.cross_layers)

    def forward(
        self, video: Tensor, text: Tensor, video_mask: Tensor, text_mask: Tensor, *, apart: bool = False
    ) -> tuple[Tensor, Tensor]:
        """o_v and o_t (FEEL, eq. 1).

        Args:
            video: e_v, shape [B, M, d].
            text: e_t, shape [B, L, d].
            video_mask: shape [B, M].
            text_mask: shape [B, L].
            apart: each modality attends to itself alone; what an option against the leak reconstructs from.

        Returns:
            shapes [B, M, d] and [B, L, d]. What stands at masked places has no meaning.
        """
        count = video.shape[1]
        x = torch.cat([self._placed(video, _VIDEO), self._placed(text, _TEXT)], 1)
        mask = torch.cat([video_mask.to(x.dtype), text_mask.to(x.dtype)], 1)
        bias = _key_bias(mask, x.dtype)
        if apart:
            is_video = torch.arange(x.shape[1], device=x.device) < count
            bias = bias + (is_video[:, None] != is_video[None, :]).to(x.dtype) * _NEGLIGIBLE
        out = self.stack(x, bias)
        return out[:, :count], out[:, count:]

    def text_alone(self, text: Tensor, text_mask: Tensor) -> Tensor:
        """o_t of a text without a video, such as a query. Shapes [B, L, d], [B, L] → [B, L, d]."""
        return self.stack.convert(self._placed(text, _TEXT), text_mask)

    def video_alone(self, video: Tensor, video_mask: Tensor) -> Tensor:
        """o_v of a video without a text. Shapes [B, M, d], [B, M] → [B, M, d]."""
        return self.stack.convert(self._placed(video, _VIDEO), video_mask)

    def video_in_windows(self, video: Tensor, video_mask: Tensor, window: int) -> Tensor:
        """o_v of a video without a text, of any length: each window of `window` vectors by itself.

        Shapes [B, M, d], [B, M] → [B, M, d]; as `video_alone` if M is at most `window`.
        """
        place = torch.arange(video.shape[1], device=video.device)
        positions = self.positions[_VIDEO][place % window]
        placed = self.norm(video + positions + self.modalities[_VIDEO])
        placed = F.dropout(placed, self.dropout, self.training)
        number = place // window
        apart = (number[:, None] != number[None, :]).to(video.dtype) * _NEGLIGIBLE
        out: Tensor = self.stack(placed, _key_bias(video_mask, video.dtype) + apart)
        return out

    def _placed(self, x: Tensor, modality: int) -> Tensor:
        longest = self.positions.shape[1]
        if not torch.compiler.is_compiling() and x.shape[1] > longest:
            raise ValueError(f"a sequence of {x.shape[1]} exceeds {longest} positions: cut it")
        placed = self.norm(x + self.positions[modality, : x.shape[1]] + self.modalities[modality])
        return F.dropout(placed, self.dropout, self.training)


class Converter(nn.Module):
    """The cross-modal Transformer with the Modality Converting Blocks (FEEL, eq. 1–3 and 10–14)."""

    def __init__(self, shape: ConverterShape) -> None:
        super().__init__()
        self.shape = shape
        self.cross = CrossModalTransformer(shape)
        self.video_to_text = TransformerStack(shape, shape.mcb_layers)
        self.text_to_video = TransformerStack(shape, shape.mcb_layers)
        own = not shape.shared_mcb
        self.video_to_text_again = TransformerStack(shape, shape.mcb_layers) if own else None
        self.text_to_video_again = TransformerStack(shape, shape.mcb_layers) if own else None

    def forward(
        self, e_v: Tensor, e_t: Tensor, video_mask: Tensor, text_mask: Tensor, *, twice: bool = True
    ) -> Converted:
        """Convert both modalities into each other, and back.

        Args:
            e_v: shape [B, M, d].
            e_t: shape [B, L, d].
            video_mask: shape [B, M].
            text_mask: shape [B, L].
            twice: convert back too; false: only what eq. 7 to 9 need.
        """
        o_v, o_t = self._cross(e_v, e_t, video_mask, text_mask)
        once = Converted(
            once_v=self.text_to_video.convert(o_t, text_mask),  # eq. 3
            once_t=self.video_to_text.convert(o_v, video_mask),  # eq. 2
        )
        if not twice:
            return once
        to_text = self.video_to_text_again or self.video_to_text
        to_video = self.text_to_video_again or self.text_to_video
        # Each converted sequence takes the place of a modality, with the length of the other one.
        o_v_again, _ = self._cross(once.once_v, e_t, text_mask, text_mask)  # eq. 10
        _, o_t_again = self._cross(e_v, once.once_t, video_mask, video_mask)  # eq. 13
        return replace(
            once,
            twice_t=to_text.convert(o_v_again, text_mask),  # eq. 11
            twice_v=to_video.convert(o_t_again, video_mask),  # eq. 14
        )

    def _cross(
        self, video: Tensor, text: Tensor, video_mask: Tensor, text_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        features: tuple[Tensor, Tensor] = self.cross(
            video, text, video_mask, text_mask, apart=self.shape.target_masked
        )
        return features


def _key_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to attention logits. Shape [B, S] → [B, 1, 1, S]."""
    return (1.0 - mask[:, None, None, :].to(dtype)) * _NEGLIGIBLE
