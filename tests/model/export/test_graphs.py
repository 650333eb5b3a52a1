"""Bundles of graphs that belong to no family: a small retrieval model without tokens and matcher."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.export.bundle import StorageChoice, write_graphs
from model.families.base import Graph
from model.runtime.bundle import Bundle
from model.runtime.errors import BundleError, InputError
from tests.support import toy_bundle as toy

pytestmark = pytest.mark.slow

EXACT = StorageChoice("float32", "float32", "float32", "float32")


class Frames(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(3, toy.DIM)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        embedding = F.normalize(self.project(frames.float().mean((1, 2)) / 255), dim=-1)
        return embedding, torch.cat([embedding, embedding], -1)


class Segments(nn.Module):
    def forward(self, frame_embedding: Tensor, frame_mask: Tensor) -> Tensor:
        return F.normalize((frame_embedding * frame_mask[..., None]).sum(1), dim=-1)


class Texts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(toy.toy_tokenizer().get_vocab_size(), toy.DIM)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        embedding = F.normalize((self.words(input_ids) * attention_mask[..., None]).sum(1), dim=-1)
        return embedding, torch.cat([embedding, embedding], -1)


@pytest.fixture(scope="module")
def graphs() -> dict[str, Graph]:
    torch.manual_seed(0)
    frames = torch.randint(0, 256, (2, toy.IMAGE_SIZE, toy.IMAGE_SIZE, 3), dtype=torch.uint8)
    embeddings = F.normalize(torch.randn(2, 5, toy.DIM), dim=-1)
    ids = torch.randint(1, 10, (2, 4))
    both = {0: "B", 1: "L"}
    return {
        "frame_encoder.onnx": Graph(
            Frames(), ("frames",), ("frame_embedding", "frame_salience"), (frames,), ({0: "B"},)
        ),
        "segment_encoder.onnx": Graph(
            Segments(),
            ("frame_embedding", "frame_mask"),
            ("segment_embedding",),
            (embeddings, torch.ones(2, 5)),
            ({0: "B", 1: "N"}, {0: "B", 1: "N"}),
        ),
        "text_encoder.onnx": Graph(
            Texts(),
            ("input_ids", "attention_mask"),
            ("text_embedding", "text_salience"),
            (ids, torch.ones_like(ids)),
            (both, both),
        ),
    }


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    path = tmp_path / "words.json"
    toy.toy_tokenizer().save(str(path))
    return path


def test_any_graphs_become_a_bundle(graphs: dict[str, Graph], tokenizer: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    description = toy.describe(name="colours", tokens=False)
    folder = tmp_path / "bundle"
    manifest = write_graphs(folder, graphs, description, tokenizer, storage=EXACT, report=lines.append)
    assert [line.split(":")[0] for line in lines] == list(graphs)
    assert (manifest.name, manifest.tokens, manifest.capabilities) == (
        "colours",
        None,
        frozenset({"image_query", "salient_frames"}),
    )
    bundle = Bundle.open(folder)
    frames = toy.random_frames(3)
    with torch.no_grad():
        expected, _ = graphs["frame_encoder.onnx"].module(torch.from_numpy(frames))
    np.testing.assert_allclose(bundle.encode_frames(frames).embedding, expected.numpy(), atol=1e-5)

    with pytest.raises(BundleError, match="exists: choose another folder"):
        write_graphs(folder, graphs, description, tokenizer)
    write_graphs(folder, graphs, toy.describe(name="again", tokens=False), tokenizer, overwrite=True)
    assert Bundle.open(folder).manifest.name == "again"


def test_a_description_of_other_graphs_is_refused(
    graphs: dict[str, Graph], tokenizer: Path, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match=r"_encoder\.onnx has the outputs .* instead of .*_tokens"):
        write_graphs(tmp_path / "bundle", graphs, toy.describe(), tokenizer)
    assert list(tmp_path.iterdir()) == [tokenizer]


def test_storage_must_be_known() -> None:
    with pytest.raises(InputError, match="unknown storage 'int4': use one of float32, float16, int8"):
        StorageChoice(words=cast(Any, "int4"))
