"""Exported bundles answer like the model they came from; what does not fit it is refused."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

import torch

from model.data.stills import read_stills
from model.evaluation.corpus import TokenOptions
from model.evaluation.encoders import BundleEncoder
from model.evaluation.evaluate import evaluate_source
from model.evaluation.measure import Options, settings_of
from model.export.bundle import TOLERANCE, ExportOptions, StorageChoice, export_bundle
from model.export.references import ReferenceTexts
from model.export.tracing import ExportError
from model.families.base import InferenceOptions
from model.families.lgdn.encoder import TowersEncoder
from model.families.lgdn.network import LGDN
from model.runtime.bundle import Bundle
from model.runtime.errors import InputError
from model.runtime.preprocessing import TextTokenizer
from tests.support.exported_lgdn import PROVENANCE, exportable_model
from tests.support.tiny_photos import make_photos

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model() -> LGDN:
    return exportable_model()


def test_nothing_is_written_when_a_graph_differs(
    model: LGDN, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.export.bundle.TOLERANCE", {"float32": 1e-4, "float16": 1e-9, "int8": 1e-9})
    with pytest.raises(ExportError, match="not exported: store its weights in a larger type"):
        export_bundle(tmp_path / "bundle", "lgdn", copy.deepcopy(model), tokenizer, PROVENANCE)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_measures_like_the_model_it_came_from(model: LGDN, tokenizer: Path, tmp_path: Path) -> None:
    """Exactly stored, every output is within 1e-4 (beside its size), and the ranks are the same."""
    exact = StorageChoice("float32", "float32", "float32", "float32")
    manifest = export_bundle(
        tmp_path / "bundle",
        "lgdn",
        copy.deepcopy(model),
        tokenizer,
        PROVENANCE,
        ExportOptions(ensemble_lambda=3.0, num_salient_frames=3, num_candidates=7, storage=exact),
        name="tiny",
    )
    assert (manifest.embedding_dim, manifest.salience_dim, manifest.text_hidden_dim) == (16, 16, 16)
    assert (manifest.salience_strategy, manifest.image.size) == ("collaborative", 48)
    assert (manifest.tokens_per_frame, manifest.stored_tokens_per_frame) == (5, 5)
    assert (manifest.ensemble_lambda, manifest.num_salient_frames, manifest.num_candidates) == (3.0, 3, 7)
    theirs = BundleEncoder(Bundle.open(tmp_path / "bundle", threads=1))
    ours = TowersEncoder(model, TextTokenizer.from_file(tokenizer, 16), ensemble_lambda=3.0)
    for have, want in zip(outputs(theirs), outputs(ours), strict=True):
        assert np.abs(have - want).max() <= 1e-4 * max(1.0, np.abs(want).max())
    photos = read_stills(make_photos(tmp_path / "data"), "val")
    options = Options(
        num_candidates=7, num_salient_frames=3, salient_frames=(1,), tokens=TokenOptions("float32")
    )
    found, expected = (evaluate_source(encoder, photos, options) for encoder in (theirs, ours))
    assert found["local"] != found["global"]
    for name in ("global", "local", "ensemble"):
        for way in ("text_to_video", "video_to_text"):
            assert found[name][way]["MnR"] == pytest.approx(expected[name][way]["MnR"], abs=0.2)


def test_a_bundle_holds_the_reference_texts_as_it_encodes_them(
    model: LGDN, tokenizer: Path, tmp_path: Path
) -> None:
    texts = [f"a {colour} block {place}" for colour in ("red", "blue", "green") for place in range(4)]
    options = ExportOptions(hubness=ReferenceTexts(0.4, texts))
    manifest = export_bundle(
        tmp_path / "bundle", "lgdn", copy.deepcopy(model), tokenizer, PROVENANCE, options
    )
    assert manifest.hubness is not None
    assert (manifest.hubness.weight, manifest.hubness.neighbours) == (0.4, 10)
    bundle = Bundle.open(tmp_path / "bundle", threads=1)
    correction = bundle.hubness_correction
    assert correction is not None
    expected = bundle.encode_text(sorted(texts, key=len)).embedding
    # A row's largest number is stored as 127.
    np.testing.assert_allclose(correction.references, expected, atol=0.6 / 127)
    photos = read_stills(make_photos(tmp_path / "data"), "val")
    encoder = BundleEncoder(bundle)
    without = Options(rerank=False, hubness=replace(correction, weight=0.0))
    found = [evaluate_source(encoder, photos, options) for options in (Options(rerank=False), without)]
    assert found[0]["global"]["text_to_video"] != found[1]["global"]["text_to_video"]
    # What is subtracted is the same for all texts of a video.
    assert found[0]["global"]["video_to_text"] == found[1]["global"]["video_to_text"]
    assert settings_of(encoder, Options(rerank=False)) == {"rerank": False, "hubness_weight": 0.4}
    with pytest.raises(InputError, match="9 reference texts: a hubness correction needs at least 10"):
        ReferenceTexts(0.4, texts[:9])


def outputs(encoder: BundleEncoder | TowersEncoder) -> list[np.ndarray]:
    """All that an encoder gives for some frames, texts and pairs."""
    frames = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 3), dtype=np.uint8)
    image = encoder.frames(frames, tokens=True)
    assert image.tokens is not None
    text = encoder.texts(["a red block left", "blue"], tokens=True)
    logits = encoder.match(text, np.array([0, 1, 1]), image.tokens)
    return [image.embedding, image.salience, image.tokens, text.embedding, text.salience, logits]


def test_smaller_weights_and_the_other_fusion_stay_close(tokenizer: Path, tmp_path: Path) -> None:
    model = exportable_model("cross_attention")
    stored = StorageChoice("float16", "int8", "int8", "float16")
    options = ExportOptions(storage=stored)
    manifest = export_bundle(
        tmp_path / "bundle", "lgdn", copy.deepcopy(model), tokenizer, PROVENANCE, options
    )
    assert (manifest.hidden_dim, manifest.text_hidden_dim) == (64, 32)
    ours = TowersEncoder(model, TextTokenizer.from_file(tokenizer, 16))
    pairs = zip(
        outputs(BundleEncoder(Bundle.open(tmp_path / "bundle", threads=1))), outputs(ours), strict=True
    )
    for have, want in pairs:
        assert np.abs(have - want).max() <= TOLERANCE["int8"] * max(1.0, np.abs(want).max())


def test_a_bundle_may_have_no_matcher_and_another_strategy(
    model: LGDN, tokenizer: Path, tmp_path: Path
) -> None:
    inference = InferenceOptions(weights="online", salience="momentum")
    options = ExportOptions(inference, matcher=False, tokens_per_frame=3)
    manifest = export_bundle(
        tmp_path / "bundle", "lgdn", copy.deepcopy(model), tokenizer, PROVENANCE, options
    )
    assert (manifest.salience_strategy, manifest.salience_dim) == ("momentum", 32)
    assert (manifest.stored_tokens_per_frame, manifest.num_salient_frames) == (3, 2)
    bundle = Bundle.open(tmp_path / "bundle", threads=1)
    assert bundle.capabilities == {"image_query", "salient_frames"}
    frames = np.zeros((1, 48, 48, 3), np.uint8)
    with torch.no_grad():
        expected = model.online.encode_frames(torch.from_numpy(frames)).embedding.numpy()
    np.testing.assert_allclose(bundle.encode_frames(frames).embedding, expected, atol=0.02)


def test_options_that_cannot_be_are_refused(model: LGDN, tokenizer: Path, tmp_path: Path) -> None:
    for options, error, message in (
        (ExportOptions(InferenceOptions(salience="best")), ValueError, "unknown salience strategy 'best'"),
        (ExportOptions(InferenceOptions(weights="both")), ValueError, "choose online or momentum"),
        (ExportOptions(tokens_per_frame=9), InputError, "5 tokens per frame cannot be merged to 9"),
        (ExportOptions(num_salient_frames=5), InputError, "5 salient frames of 4 a segment"),
    ):
        with pytest.raises(error, match=message):
            export_bundle(tmp_path / "bundle", "lgdn", copy.deepcopy(model), tokenizer, PROVENANCE, options)
    assert list(tmp_path.iterdir()) == []
