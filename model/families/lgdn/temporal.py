"""The temporal layer that joins frames to one segment; the encoders of frames and texts are in `backbones/`.

Shapes, here and everywhere: B batch or pairs, F packed frames, N frame slots, P tokens a frame, L text
tokens, H width of a frame's tokens, T width of a text's tokens, D joint space, S salience, M bank,
K candidates, Q queries, V videos.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.backbones.attention import attention
from model.backbones.pooling import masked_mean


class TemporalLayer(nn.Module):
    """One pre-LN Transformer layer over frame embeddings with learned positions (the T of eq. 1).

    Both residual branches start as zero, so an untrained layer computes the masked mean. With stochastic
    depth (Huang et al., 2016) training leaves the layer out of a share `drop` of the segments, so that these
    are means.
    """

    def __init__(self, dim: int, frames: int, heads: int = 4, drop: float = 0.0) -> None:
        super().__init__()
        self.heads, self.drop = heads, drop
        self.positions = nn.Parameter(torch.zeros(frames, dim))
        nn.init.normal_(self.positions, std=0.02)
        self.attention_norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.attention_out = nn.Linear(dim, dim)
        self.feed_norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, 2 * dim)
        self.down = nn.Linear(2 * dim, dim)
        for layer in (self.attention_out, self.down):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Shapes frames [B, N, D], mask [B, N], 1 for real frames → [B, D], not normalised."""
        b, n, d = frames.shape
        x = self.attention_norm(frames + self.positions[:n])
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        bias = (1.0 - mask[:, None, None, :].to(q.dtype)) * -10000.0
        y = attention(q, k, v, bias)
        x = frames + self.attention_out(y.transpose(1, 2).reshape(b, n, d))
        x = x + self.down(F.gelu(self.up(self.feed_norm(x))))
        if self.training and self.drop:
            x = frames + F.dropout(x.new_ones(b, 1, 1), self.drop) * (x - frames)
        return masked_mean(x, mask)
