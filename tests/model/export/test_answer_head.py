"""Bundles with an answer head answer as the model that they were exported from."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from model.evaluation.encoders import BundleEncoder
from model.export.bundle import ExportOptions, StorageChoice, export_bundle
from model.families import get_family
from model.families.base import InferenceOptions
from model.families.encoder import AnswersQuestions
from model.families.lgdn_qa.encoder import AnsweringTowers
from model.runtime.bundle import Bundle
from model.runtime.errors import InputError
from model.runtime.preprocessing import TextTokenizer
from tests.support.exported_lgdn import PROVENANCE
from tests.support.tiny_lgdn_qa import ANSWERS, answer_model

pytestmark = pytest.mark.slow

EXACT = StorageChoice("float32", "float32", "float32", "float32")
QUESTIONS = ["a red block left", "blue", "is tall"]


def logits_of(encoder: AnsweringTowers | BundleEncoder) -> np.ndarray:
    assert isinstance(encoder, AnswersQuestions)
    frames = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    tokens = encoder.frames(frames, tokens=True).tokens
    assert tokens is not None
    text = encoder.texts(QUESTIONS, tokens=True)
    mask = np.array([[1, 1], [1, 0], [1, 1]], np.float32)
    return encoder.answer(text, np.array([0, 1, 2]), tokens.reshape(3, 2, *tokens.shape[1:]), mask)


@pytest.mark.parametrize(
    ("settings", "capabilities"),
    [
        ({"tune_towers": False, "inference_weights": "momentum"}, {"match", "answers"}),
        ({"fusion": "cross_attention", "salience_strategy": "simdot"}, {"answers"}),
    ],
    ids=["frozen, joint fusion", "tuned, the paper's fusion"],
)
def test_a_bundle_answers_as_its_model(
    settings: dict[str, object], capabilities: set[str], tokenizer: Path, tmp_path: Path
) -> None:
    model = answer_model(context_length=16, **settings).eval()
    manifest = export_bundle(
        tmp_path / "bundle",
        "lgdn_qa",
        copy.deepcopy(model),
        tokenizer,
        PROVENANCE,
        ExportOptions(storage=EXACT),
    )
    assert manifest.capabilities == capabilities
    assert {"answers.json", "answer_head.onnx"} <= manifest.files.keys()
    bundle = Bundle.open(tmp_path / "bundle", threads=1)
    assert bundle.vocabulary == ANSWERS
    ours = get_family("lgdn_qa").encoder(model, TextTokenizer.from_file(tokenizer, 16))
    assert isinstance(ours, AnsweringTowers)
    assert ours.has_matcher == ("match" in capabilities)
    expected = logits_of(ours)
    assert np.abs(expected).max() > 0.05
    np.testing.assert_allclose(logits_of(BundleEncoder(bundle)), expected, atol=1e-4)


def test_only_heads_of_salient_frames_are_exported() -> None:
    family = get_family("lgdn_qa")
    with pytest.raises(
        InputError, match=r"trained with model\.frames_read=none, a baseline to measure: export"
    ):
        family.graphs(answer_model(frames_read="none"))
    with pytest.raises(
        InputError, match="weights='momentum': the answer head was trained with the online ones"
    ):
        family.graphs(answer_model(), InferenceOptions(weights="momentum"))
    described = family.describe(answer_model())
    assert described.answers == ANSWERS
