"""The temporal layer against its definition."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
from torch import nn

from model.backbones.pooling import masked_mean
from model.families.lgdn.temporal import TemporalLayer


def test_an_untrained_temporal_layer_is_the_masked_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(3, 6, 16, generator=generator)
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1]], dtype=torch.float32)
    expected = torch.stack([frames[i][mask[i].bool()].mean(0) for i in range(3)])
    with torch.no_grad():
        torch.testing.assert_close(TemporalLayer(16, 8)(frames, mask), expected)
        torch.testing.assert_close(masked_mean(frames, mask), expected)


def test_padding_frames_never_reach_a_trained_temporal_layer() -> None:
    torch.manual_seed(0)
    layer = TemporalLayer(16, 8)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    frames = torch.randn(1, 5, 16)
    padded = torch.cat([frames, torch.full((1, 3, 16), 50.0)], 1)
    mask = torch.tensor([[1.0] * 5 + [0.0] * 3])
    with torch.no_grad():
        alone = layer(frames, torch.ones(1, 5))
        torch.testing.assert_close(layer(padded, mask), alone, rtol=1e-4, atol=1e-4)
        assert float((alone - frames.mean(1)).abs().max()) > 0.1


def test_a_part_of_the_segments_is_their_mean_in_training_alone() -> None:
    torch.manual_seed(0)
    layer = TemporalLayer(16, 8, drop=0.25)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    frames, mask = torch.randn(1, 5, 16).expand(400, 5, 16), torch.ones(400, 5)
    with torch.no_grad():
        segments = layer(frames, mask)
        is_mean = (segments - frames.mean(1)).abs().amax(1) < 1e-5
        assert 0.15 < float(is_mean.float().mean()) < 0.35
        layer.eval()
        torch.testing.assert_close(layer(frames, mask), layer(frames[:1], mask[:1]).expand(400, 16))
        assert float((layer(frames[:1], mask[:1]) - frames[0].mean(0)).abs().max()) > 0.1
