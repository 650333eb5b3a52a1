"""Multi-head attention that trains fast on every device.

Shapes: B batch, L queries, P keys, d the width of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention, softmax(q kᵀ / √d + bias) v, with PyTorch's kernel where that is fast.

    Args:
        query: shape [B, heads, L, d].
        key: shape [B, heads, P, d].
        value: shape [B, heads, P, d].
        bias: added to the logits, shape that broadcasts to [B, heads, L, P]; None: nothing is added.

    Returns:
        Shape [B, heads, L, d].
    """
    if query.device.type == "cpu" and query.dtype == torch.bfloat16:
        # There the backward pass of PyTorch's kernel takes four to eight times as long.
        return plain_attention(query, key, value, bias)
    bias = None if bias is None else bias.to(query.dtype)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)


def plain_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    """The same, written out as matrix products: the fastest for a dozen queries or fewer. See `attention`."""
    logits = query @ key.transpose(2, 3) * query.shape[3] ** -0.5
    logits = logits if bias is None else logits + bias.to(query.dtype)
    attended: Tensor = logits.softmax(-1) @ value
    return attended
