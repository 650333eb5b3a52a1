"""Attention as written out equals PyTorch's, values and gradients, in every precision."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.backbones.attention import attention, plain_attention


def inputs(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Seven queries, nine keys and their values."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, n, 8).to(dtype).requires_grad_() for n in (7, 9, 9))
    return query, key, value


def padding(keys: int = 9) -> Tensor:
    """The last four keys of the second row are padding."""
    bias = torch.zeros(2, 1, 1, keys)
    bias[1, :, :, -4:] = -10000.0
    return bias


@pytest.mark.parametrize("bias", [None, padding()])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
@pytest.mark.parametrize("attend", [attention, plain_attention])
def test_equals_exact_attention(
    attend: Callable[..., Tensor], dtype: torch.dtype, tolerance: float, bias: Tensor | None
) -> None:
    ours = inputs(dtype)
    query, key, value = exact = [x.detach().double().requires_grad_() for x in ours]
    attended = attend(*ours, bias)
    expected = F.scaled_dot_product_attention(
        query, key, value, attn_mask=None if bias is None else bias.double()
    )
    upstream = torch.randn(expected.shape, dtype=torch.float64)
    assert attended.dtype == dtype
    torch.testing.assert_close(attended.double(), expected, atol=tolerance, rtol=0)
    gradients = torch.autograd.grad(attended, ours, upstream.to(dtype))
    exact_gradients = torch.autograd.grad(expected, exact, upstream)
    for x, y in zip(gradients, exact_gradients, strict=True):
        torch.testing.assert_close(x.double(), y, atol=2 * tolerance, rtol=0)


def test_padding_changes_nothing() -> None:
    query, key, value = inputs(torch.bfloat16)
    other_key, other_value = (
        torch.cat([x[:, :, :5], 100 * torch.ones_like(x[:, :, 5:])], 2) for x in (key, value)
    )
    expected = attention(query, key, value, padding())[1]
    assert torch.equal(attention(query, other_key, other_value, padding())[1], expected)
