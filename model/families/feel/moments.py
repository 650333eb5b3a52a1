"""HERO's heads that find videos and moments: query encoder, score of a video, start and end of a moment.

Shapes: Q queries, V videos, L tokens of a query, M frames (feature vectors) of a video, d width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.backbones.attention import attention

_NEGLIGIBLE = -10000.0


class QueryEncoder(nn.Module):
    """Makes one vector of the tokens of a query.

    LN, dropout, linear, ReLU; positions; one block of self-attention; a sum weighted by a softmax.
    """

    def __init__(self, hidden: int, heads: int, positions: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.input_norm = nn.LayerNorm(hidden)
        self.input = nn.Linear(hidden, hidden)
        self.positions = nn.Parameter(torch.randn(positions, hidden) * 0.02)
        self.position_norm = nn.LayerNorm(hidden)
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.attention_out = nn.Linear(hidden, hidden)
        self.attention_norm = nn.LayerNorm(hidden)
        self.weight = nn.Linear(hidden, 1, bias=False)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """The query vector q, of any length. Shapes [Q, L, d], [Q, L], 1 for real tokens → [Q, d]."""
        b, length, d = tokens.shape
        x = F.dropout(self.input_norm(tokens), self.dropout, self.training)
        x = self.position_norm(F.relu(self.input(x)) + self.positions[:length])
        x = F.dropout(x, self.dropout, self.training)
        bias = (1.0 - mask.to(x.dtype)) * _NEGLIGIBLE
        q, k, v = self.qkv(x).view(b, length, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        y = attention(q, k, v, bias[:, None, None, :])
        y = self.attention_out(y.transpose(1, 2).reshape(b, length, d))
        x = self.attention_norm(x + F.dropout(y, self.dropout, self.training))
        share = torch.softmax(self.weight(x)[:, :, 0].float() + bias.float(), -1)
        query: Tensor = (x.float() * share[:, :, None]).sum(1)
        return query


class MomentHead(nn.Module):
    """Start and end of the moment that a query describes: s_l = ⟨W q, frame_l⟩, then one convolution each."""

    def __init__(self, hidden: int, kernel: int = 5) -> None:
        super().__init__()
        self.query = nn.Linear(hidden, hidden)
        self.start = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)
        self.end = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, query: Tensor, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the start and of the end at each frame, for pairs of a query and a video.

        Masked frames count as 0 in the convolutions, so that padding changes nothing, and get −10⁴.

        Shapes query [Q, d], frames [Q, M, d], mask [Q, M], 1 for real frames → [Q, M] twice.
        """
        real = mask.to(frames.dtype)
        similarity = torch.einsum("qd,qmd->qm", self.query(query), frames) * real
        outside = (1.0 - real) * _NEGLIGIBLE
        start = self.start(similarity[:, None])[:, 0] * real + outside
        return start, self.end(similarity[:, None])[:, 0] * real + outside


def video_scores(query: Tensor, frames: Tensor, mask: Tensor) -> Tensor:
    """The score of each video for each query: the largest cosine of the query and a real frame.

    Shapes [Q, d], [V, M, d], [V, M], at least one real frame in every row → [Q, V].
    """
    similarity = torch.einsum(
        "qd,vmd->qvm", F.normalize(query.float(), dim=-1), F.normalize(frames.float(), dim=-1)
    )
    return similarity.masked_fill(mask[None] <= 0, _NEGLIGIBLE).amax(-1)


def span_label(start_seconds: float, end_seconds: float, every_seconds: float, count: int) -> tuple[int, int]:
    """First and last frame of a span, HERO's labels, both inclusive.

    Args:
        start_seconds: start of the span.
        end_seconds: its end.
        every_seconds: seconds that a frame stands for.
        count: frames of the video, at least 1.
    """
    last = count - 1
    start = min(math.floor(start_seconds / every_seconds), last)
    end = max(math.ceil(end_seconds / every_seconds) - 1, start + 1)
    return start, min(end, last)
