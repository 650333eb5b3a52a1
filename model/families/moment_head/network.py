"""The moment head: start, end and rejection of every frame of a film for a query.

Shapes: B pairs of a query and a film, T frames, D joint space, C channels, H attention heads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.backbones.attention import plain_attention
from model.runtime.errors import InputError

_NEGLIGIBLE = -10000.0
_SIGNALS = 8
# Cosines of a text with frames differ by hundredths: scaled, they learn as fast as the rest.
_COSINE_SCALE = 10.0


@dataclass(frozen=True)
class MomentHeadConfig:
    """Sizes of the head.

    Attributes:
        dim: D, the dimensions of the embeddings.
        channels: C.
        layers: blocks of convolution, attention and feed-forward.
        heads: H.
        kernel: frames that a convolution sees, an odd number.
        dropout: share of the channels that training drops.

    Raises:
        InputError: a size is invalid.
    """

    dim: int
    channels: int = 64
    layers: int = 2
    heads: int = 4
    kernel: int = 5
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("dim", "channels", "layers", "heads", "kernel"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: it must be at least 1", name)
        if self.channels % self.heads:
            raise InputError(f"channels {self.channels} must be a multiple of heads {self.heads}", "channels")
        if self.kernel % 2 == 0:
            raise InputError(f"kernel is {self.kernel}: it must be odd", "kernel")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout is {self.dropout}: it must be at least 0 and below 1", "dropout")


class FilmMomentHead(nn.Module):
    """Finds the moment of a film that a query describes, and the frames that belong to no answer.

    A frame is described by its embedding times the query's, by its cosine with the query (as it is, and
    beside those of the film), and by its cosines with the frames around it, which show cuts. Attention knows
    how far two frames are from each other in time, how alike they are, and how much changes between them; it
    knows no position, so that a film may have any length. HERO's convolutions over the cosine are added to
    the start and the end.
    """

    def __init__(self, config: MomentHeadConfig) -> None:
        super().__init__()
        self.config = config
        c = config.channels
        self.product = nn.Linear(config.dim, c)
        self.signals = nn.Conv1d(_SIGNALS, c, config.kernel, padding=config.kernel // 2)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(c)
        self.out = nn.Linear(c, 3)
        self.start = nn.Conv1d(1, 1, config.kernel, padding=config.kernel // 2, bias=False)
        self.end = nn.Conv1d(1, 1, config.kernel, padding=config.kernel // 2, bias=False)
        self.rejection = nn.Parameter(torch.tensor(-1.0))

    def forward(
        self, text_query: Tensor, frame_embedding: Tensor, frame_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of each frame: that it is the first one of the answer, the last one, and part of no answer.

        Padding changes nothing; it gets −10⁴ for start and end and 10⁴ for rejection.

        Shapes text_query [B, D], frame_embedding [B, T, D], both of unit length, frame_mask [B, T], 1 for
        real frames, at least one in every row → [B, T] three times.
        """
        real = frame_mask.to(frame_embedding.dtype)
        frames = frame_embedding * real[..., None]
        cosine = (frames @ text_query[:, :, None])[..., 0] * _COSINE_SCALE
        signals, change = _signals(frames, cosine, real)
        x = self.product(frames * text_query[:, None] * self.config.dim**0.5)
        x = (x + self.signals(signals.transpose(1, 2)).transpose(1, 2)) * real[..., None]
        bias = _Relations(frames, change, real)
        for block in self.blocks:
            x = block(x, bias, real)
        start, end, rejection = self.out(self.norm(x)).unbind(-1)
        centred = signals[..., 1:2].transpose(1, 2)
        start = start + self.start(centred)[:, 0]
        end = end + self.end(centred)[:, 0]
        rejection = rejection + self.rejection * cosine
        outside = (1.0 - real) * _NEGLIGIBLE
        return start * real + outside, end * real + outside, rejection * real - outside


def _signals(frames: Tensor, cosine: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """What a frame's place among the others tells: signals [B, T, 8] and the change up to it [B, T]."""
    count = real.sum(1, keepdim=True).clamp_min(1.0)
    mean = (cosine * real).sum(1, keepdim=True) / count
    spread = (((cosine - mean) ** 2 * real).sum(1, keepdim=True) / count + 1e-2).sqrt()
    highest = (cosine + (1.0 - real) * _NEGLIGIBLE).amax(1, keepdim=True)
    before, after = _beside(frames, 1)
    before2, after2 = _beside(frames, 2)
    alike = (before, after, before2, after2)
    signals = torch.stack([cosine, cosine - mean, (cosine - mean) / spread, cosine - highest, *alike], dim=-1)
    change = torch.cumsum((1.0 - before) * real, dim=1)
    return signals * real[..., None], change


def _beside(frames: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """Cosine of each frame with the one `step` before it and with the one after it; 0 beyond the ends."""
    padded = F.pad(frames, (0, 0, step, step))
    count = frames.shape[1]
    before = (frames * padded[:, :count]).sum(-1)
    after = (frames * padded[:, 2 * step : 2 * step + count]).sum(-1)
    return before, after


class _Relations:
    """Of every two frames: their distance in time, their likeness and the change between them, [B, T, T]."""

    def __init__(self, frames: Tensor, change: Tensor, real: Tensor) -> None:
        place = torch.cumsum(torch.ones_like(real[:1]), dim=1)
        self.distance = torch.log1p((place[:, :, None] - place[:, None, :]).abs())
        self.alike = frames @ frames.transpose(1, 2)
        self.change = torch.log1p((change[:, :, None] - change[:, None, :]).abs())
        self.padding = ((1.0 - real) * _NEGLIGIBLE)[:, None, None, :]


class _Block(nn.Module):
    """Depthwise convolution, attention among frames, feed-forward; each after a norm, added to its input."""

    def __init__(self, config: MomentHeadConfig) -> None:
        super().__init__()
        c, self.heads = config.channels, config.heads
        self.norms = nn.ModuleList(nn.LayerNorm(c) for _ in range(3))
        self.depthwise = nn.Conv1d(c, c, config.kernel, padding=config.kernel // 2, groups=c)
        self.mix = nn.Linear(c, c)
        self.qkv = nn.Linear(c, 3 * c)
        self.attention_out = nn.Linear(c, c)
        #: weights of distance, likeness and change in the attention of each head
        self.relation = nn.Parameter(torch.tensor([[-0.5], [4.0], [-1.0]]).repeat(1, self.heads))
        self.expand = nn.Linear(c, 2 * c)
        self.contract = nn.Linear(2 * c, c)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, relations: _Relations, real: Tensor) -> Tensor:
        """Shapes [B, T, C], [B, T] → [B, T, C]; padding stays 0."""
        b, count, c = x.shape
        y = self.norms[0](x) * real[..., None]
        y = self.mix(F.gelu(self.depthwise(y.transpose(1, 2)).transpose(1, 2)))
        x = x + self.dropout(y) * real[..., None]
        qkv = self.qkv(self.norms[1](x)).view(b, count, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        weights = self.relation[:, None, :, None, None]
        bias = relations.padding + weights[0] * relations.distance[:, None]
        bias = bias + weights[1] * relations.alike[:, None] + weights[2] * relations.change[:, None]
        y = plain_attention(q, k, v, bias).transpose(1, 2).reshape(b, count, c)
        x = x + self.dropout(self.attention_out(y)) * real[..., None]
        y = self.contract(F.gelu(self.expand(self.norms[2](x))))
        result: Tensor = x + self.dropout(y) * real[..., None]
        return result
