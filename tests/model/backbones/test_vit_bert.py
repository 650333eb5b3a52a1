"""Our ViT and BERT against those of transformers with the same tiny random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor, nn

from model.backbones import build_image
from model.backbones.efficientnet import EfficientNetLite
from model.backbones.vit import VisionTransformer
from model.runtime.onnx import ort
from tests.support.tiny_transformers import bert, build_bert, config, frames_of, load_vit, pixels_of, vit

__all__ = ["bert", "vit"]
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}


@pytest.mark.parametrize("size", [32, 48, 16])
def test_vit_equals_transformers_at_any_image_size(vit: tuple[Any, Path], size: int) -> None:
    model, folder = vit
    image, frames = load_vit(folder, image_size=size), frames_of(size)
    with torch.no_grad():
        expected = model(pixels_of(frames), interpolate_pos_encoding=True).last_hidden_state
        pooled, cells = image(image.prepare(frames))
    assert cells.shape == (2, (size // 8) ** 2, image.width)
    torch.testing.assert_close(pooled, expected[:, 0], **CLOSE)
    torch.testing.assert_close(cells, expected[:, 1:], **CLOSE)


def texts() -> tuple[Tensor, Tensor]:
    ids = torch.randint(1, 60, (3, 9), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    mask[1, 5:], mask[2, 2:] = 0, 0
    return ids, mask


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_bert_equals_transformers_on_padded_texts(bert: tuple[Any, Path], pooling: str) -> None:
    model, folder = bert
    text = build_bert(config(bert=folder, text_pooling=pooling)).eval()
    text.load(folder)
    ids, mask = texts()
    with torch.no_grad():
        expected = model(ids, attention_mask=mask).last_hidden_state
        tokens, pooled = text(ids, mask)
    for row in range(len(ids)):
        real = expected[row, : int(mask[row].sum())]
        torch.testing.assert_close(tokens[row, : len(real)], real, **CLOSE)
        torch.testing.assert_close(pooled[row], real.mean(0) if pooling == "mean" else real[0], **CLOSE)


def test_layers_handed_to_the_fusion_finish_what_the_text_encoder_begins(bert: tuple[Any, Path]) -> None:
    model, folder = bert
    text = build_bert(config(bert=folder), hand_over=3).eval()
    top = text.load(folder)
    assert (len(text.layers), len(top)) == (1, 3)
    ids = texts()[0]
    mask = torch.ones_like(ids)
    with torch.no_grad():
        x = text(ids, mask)[0]
        for layer in top:
            x = layer(x, torch.zeros(len(ids), 1, 1, 1))
        torch.testing.assert_close(x, model(ids, attention_mask=mask).last_hidden_state, **CLOSE)
    with pytest.raises(ValueError, match=r"fusion_from_text=4 must be 0 to 3"):
        build_bert(config(bert=folder), hand_over=4)


def gradients(module: nn.Module, outputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
    module.zero_grad()
    torch.autograd.backward(sum((o.square().sum() for o in outputs), torch.zeros(())))
    return {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", ["vit", "bert", "efficientnet"])
def test_gradient_checkpointing_changes_nothing(kind: str) -> None:
    sizes: dict[str, Any] = {
        "backbone_shape": "hidden=24,layers=3,heads=4,intermediate=40,patch=8",
        "text_shape": "vocabulary=60,hidden=24,layers=3,heads=4,intermediate=40,positions=20",
        "dropout": 0.2,
    }
    found = []
    for again in (False, True):
        torch.manual_seed(0)
        settings = config(gradient_checkpointing=again, **sizes)
        if kind == "efficientnet":
            settings = replace(settings, backbone="tiny", image_size=64)
        text = build_bert(settings) if kind == "bert" else None
        image = build_image(settings) if text is None else None
        module = image if text is None else text
        assert module is not None
        module.freeze()
        module.train()
        calls = count_calls(module)
        torch.manual_seed(1)
        if text is not None:
            out = text(*texts())
        elif image is not None:
            out = image(image.prepare(frames_of(settings.image_size)))
        found.append((out, gradients(module, out), calls))
    (plain, plain_grad, once), (saved, saved_grad, twice) = found
    for a, b in zip(plain, saved, strict=True):
        torch.testing.assert_close(a, b)
    assert plain_grad.keys() == saved_grad.keys()
    assert len(plain_grad) > 5
    for name, gradient in plain_grad.items():
        torch.testing.assert_close(gradient, saved_grad[name])
    assert len(twice) == 2 * len(once) > 0


def count_calls(module: nn.Module) -> list[str]:
    """Grows with every layer that runs, in the backward pass too."""
    calls: list[str] = []
    layers = module.blocks if isinstance(module, EfficientNetLite) else module.layers
    assert isinstance(layers, nn.ModuleList)
    for layer in layers:
        layer.register_forward_pre_hook(lambda *_: calls.append("layer"))
    return calls


def test_frozen_layers_of_a_vit_run_in_prepare_and_do_not_train(vit: tuple[Any, Path]) -> None:
    folder, frames = vit[1], frames_of(32)
    whole, late = load_vit(folder), load_vit(folder, frozen_stages=2)
    with torch.no_grad():
        prepared = late.prepare(frames)
        for a, b in zip(whole(whole.prepare(frames)), late(prepared), strict=True):
            torch.testing.assert_close(a, b, **CLOSE)
    late.freeze()
    trained = {n for n, p in late.named_parameters() if p.requires_grad}
    assert {n.split(".")[0] for n in trained} == {"layers", "norm"}
    assert {n.split(".")[1] for n in trained if "layers" in n} == {"2"}


class ImageGraph(nn.Module):
    def __init__(self, image: VisionTransformer) -> None:
        super().__init__()
        self.image = image

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        pooled: tuple[Tensor, Tensor] = self.image(self.image.prepare(frames))
        return pooled


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_both_export_with_any_batch(tmp_path: Path, vit: tuple[Any, Path], bert: tuple[Any, Path]) -> None:
    text = build_bert(config(bert=bert[1], text_pooling="cls")).eval()
    text.load(bert[1])
    text.trim(16)
    assert text.positions.num_embeddings == 16
    image = ImageGraph(load_vit(vit[1])).eval()
    batch, length = torch.export.Dim.DYNAMIC, torch.export.Dim.DYNAMIC
    cases = (
        ("image", image, (frames_of(32),), ({0: batch},), (frames_of(32, 5),)),
        (
            "text",
            text,
            texts(),
            ({0: batch, 1: length}, {0: batch, 1: length}),
            tuple(t[:2] for t in texts()),
        ),
    )
    for name, module, example, dynamic, other in cases:
        path = tmp_path / f"{name}.onnx"
        torch.onnx.export(
            module,
            example,
            str(path),
            dynamic_shapes=dynamic,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [i.name for i in session.get_inputs()]
        for inputs in (example, other, tuple(t[:1] for t in other)):
            found = session.run(None, {n: t.numpy() for n, t in zip(names, inputs, strict=True)})
            with torch.no_grad():
                expected = module(*inputs)
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_allclose(a, b.numpy(), rtol=1e-4, atol=1e-4)
