"""The closed-form start against the definition of canonical correlation, and what it does to a model."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

pytest.importorskip("torch")

import torch

from model.data.loaders import StillLoader
from model.families.lgdn.closed_form import canonical_correlation, start_projections
from model.families.lgdn.network import CLASS_SOFTNESS, LGDNBatch
from model.settings import TrainConfig
from model.training.setup import start
from tests.support.tiny_lgdn import lgdn_of
from tests.support.tiny_photos import make_photos, make_tokenizer, tiny_config


def pairs(count: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    """Two views of two hidden causes, one of them behind more noise, among directions of noise alone."""
    generator = torch.Generator().manual_seed(0)
    causes = torch.randn(count, 2, generator=generator)
    x = torch.randn(count, 6, generator=generator) + 3.0
    y = torch.randn(count, 5, generator=generator) * 2.0
    x[:, 1], y[:, 2] = causes[:, 0] * 5 + 1, causes[:, 0] * 0.3
    x[:, 4], y[:, 0] = causes[:, 1] + 0.7 * x[:, 4], causes[:, 1] * 9
    return x, y


def test_directions_are_uncorrelated_and_weighted_by_their_correlation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The definition holds without ridges.
    monkeypatch.setattr("model.families.lgdn.closed_form._IMAGE_RIDGE", 1e-6)
    monkeypatch.setattr("model.families.lgdn.closed_form._TEXT_RIDGE", 1e-6)
    x, y = pairs()
    map_x, map_y = canonical_correlation(x, y, 3)
    with torch.no_grad():
        u, v = map_x(x), map_y(y)
    torch.testing.assert_close(u.mean(0), torch.zeros(3), atol=1e-3, rtol=0)
    correlation = (u * v).mean(0) / (u.square().mean(0) * v.square().mean(0)).sqrt()
    assert correlation[0] > 0.99
    assert 0.7 < correlation[1] < 0.95
    assert correlation[2] < 0.1
    # Each direction's spread is its correlation, and directions are apart.
    covariance = u.T @ u / len(u)
    torch.testing.assert_close(covariance, torch.diag(correlation.square()), atol=2e-3, rtol=0)


def test_directions_the_data_lacks_are_zeros() -> None:
    x, y = pairs(200)
    map_x, map_y = canonical_correlation(x, y, 9)
    assert map_x.weight.shape == (9, 6)
    assert torch.equal(map_x.weight[5:], torch.zeros(4, 6))
    assert torch.equal(map_y.bias[5:], torch.zeros(4))


def test_each_class_projects_to_its_names_embedding(tmp_path: Path) -> None:
    data, tokenizer = make_photos(tmp_path / "data"), make_tokenizer(tmp_path / "tokenizer.json")
    run = start(tiny_config(data, tmp_path / "run"), lambda _: None, tokenizer)
    names = ["red block", "green block", "blue", "white", "tall", "high", "low"]
    settings = TrainConfig(class_share=0.5, precision="float32")
    loader = cast(StillLoader[LGDNBatch], run.loader)
    model = lgdn_of(run)
    start_projections(model, loader.views, loader.stills, run.tokenizer, names, settings)

    online = model.online.eval()
    assert online.class_projection is not None
    assert online.classifier is not None
    tokens = run.tokenizer([f"a photo of a {name}" for name in names])
    with torch.no_grad():
        ids, mask = torch.from_numpy(tokens.input_ids), torch.from_numpy(tokens.attention_mask)
        texts = online.text_projection(online.text(ids, mask)[1])
        centred = texts - texts.mean(0)
        columns = online.class_projection.weight.T
        cosine = torch.cosine_similarity(columns, centred)
        torch.testing.assert_close(cosine, torch.ones(7), atol=1e-4, rtol=0)
        # Over the training photos the classes' part is half as long as the projection's.
        photos = torch.stack([torch.from_numpy(loader.stills.load(i, 48)) for i in range(24)])
        pooled = online.encode_frames(photos).pooled
        part = online.class_projection(torch.softmax(online.classifier(pooled) / CLASS_SOFTNESS, -1))
        share = part.norm(dim=-1).mean() / online.frame_projection(pooled).norm(dim=-1).mean()
        assert float(share) == pytest.approx(0.5, rel=0.01)
    for slow, fast in zip(model.momentum.parameters(), online.parameters(), strict=True):
        assert torch.equal(slow, fast)
