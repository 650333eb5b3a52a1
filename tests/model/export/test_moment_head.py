"""A moment head in a bundle: ONNX gives what PyTorch gives, and the rest of the bundle stays as it was."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from model.export.moment_head import add_moment_head, head_content
from model.export.tracing import ExportError
from model.families.moment_head.network import FilmMomentHead, MomentHeadConfig
from model.runtime.bundle import Bundle
from tests.support import toy_bundle as toy


def head(channels: int = 8, layers: int = 2, seed: int = 0) -> FilmMomentHead:
    torch.manual_seed(seed)
    return FilmMomentHead(MomentHeadConfig(dim=8, channels=channels, layers=layers, heads=2)).eval()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.make_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy", answers=True)


@pytest.fixture(scope="module")
def written(plain: Path) -> Bundle:
    output = plain.parent / "moments"
    add_moment_head(Bundle.open(plain), head(), output, 1.5, {"steps": 3}, ["photos"])
    return Bundle.open(output)


@pytest.mark.parametrize("frames", [1, 2, 7, 200])
def test_onnx_gives_what_pytorch_gives(written: Bundle, frames: int) -> None:
    random = np.random.default_rng(frames)
    query, shown = toy.unit(random.normal(size=(3, 8))), toy.unit(random.normal(size=(3, frames, 8)))
    mask = np.ones((3, frames), np.bool_)
    mask[0, max(1, frames // 3) :] = False
    logits = written.moments(query, shown, mask)
    with torch.no_grad():
        expected = head()(*(torch.from_numpy(v.astype(np.float32)) for v in (query, shown, mask)))
    for ours, theirs in zip((logits.start, logits.end, logits.rejection), expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), atol=2e-2)


def test_the_rest_of_the_bundle_stays(plain: Path, written: Bundle) -> None:
    before, after = Bundle.open(plain).manifest, written.manifest
    assert written.capabilities == {"image_query", "salient_frames", "match", "answers", "moments"}
    assert after.moments is not None
    assert after.moments.every_seconds == 1.5
    for name, record in before.files.items():
        assert after.files[name] == record
    kept = {"files", "moments", "provenance"}
    assert after.model_dump(exclude=kept) == before.model_dump(exclude=kept)
    assert json.loads(after.provenance.recipe)["moment_head"]["steps"] == 3
    assert [record.name for record in after.provenance.data] == ["photos"]


def test_a_head_is_replaced(written: Bundle, tmp_path: Path) -> None:
    output = tmp_path / "again"
    manifest = add_moment_head(written, head(seed=1), output, 1.0, {}, ["photos"])
    assert manifest.files["moment_head.onnx"] != written.manifest.files["moment_head.onnx"]
    assert [record.name for record in manifest.provenance.data] == ["photos"]


def test_a_head_above_two_megabytes_is_refused(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"more than 2,000,000: lower `channels` or `layers`"):
        head_content(head(channels=400, layers=1))


def test_the_default_head_is_below_two_megabytes() -> None:
    assert len(head_content(FilmMomentHead(MomentHeadConfig(dim=256)))) <= 2_000_000
