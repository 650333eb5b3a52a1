"""The hubness correction of frames: in memory, and in the graphs of a bundle, against its definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from model.evaluation.encoders import BundleEncoder
from model.evaluation.frame_hubness import FrameHubnessEncoder
from model.export.bundle import ExportOptions, export_bundle
from model.export.references import ReferenceTexts
from model.families.base import InferenceOptions
from model.families.lgdn.family import LGDNFamily
from model.runtime.bundle import Bundle, HubnessCorrection
from model.runtime.bundle.manifest import Provenance, SalienceMatch
from model.runtime.errors import InputError
from model.runtime.preprocessing import TextTokenizer
from tests.support.tiny_lgdn import random_frames, tiny_model
from tests.support.tiny_photos import make_tokenizer

TEXTS = ["red block", "green block", "blue", "white", "tall", "high", "low", "red", "green", "a", "b", "c"]
WEIGHT = 0.5


@pytest.mark.parametrize("strategy", ["simdot", "collaborative"])
def test_relevance_is_less_by_the_mean_of_the_nearest_references(tmp_path: Path, strategy: str) -> None:
    model, tokenizer_file = tiny_model(frames=4), make_tokenizer(tmp_path / "tokenizer.json")
    tokenizer = TextTokenizer.from_file(tokenizer_file, 12)
    plain = LGDNFamily().encoder(model, tokenizer, InferenceOptions(salience=strategy))
    frames = random_frames(5, seed=3).numpy()
    references = plain.texts(TEXTS).salience
    correction = HubnessCorrection(WEIGHT, 10, references)
    encoder = FrameHubnessEncoder(plain, correction)

    raw = plain.frames(frames).salience @ plain.texts(TEXTS).salience.T
    hubness = np.sort(plain.frames(frames).salience @ references.T, axis=1)[:, -10:].mean(1)
    expected = raw - WEIGHT * hubness[:, None]
    found = encoder.frames(frames).salience @ encoder.texts(TEXTS).salience.T
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(encoder.frames(frames).embedding, plain.frames(frames).embedding)
    np.testing.assert_array_equal(encoder.texts(TEXTS).embedding, plain.texts(TEXTS).embedding)

    folder = tmp_path / "bundle"
    options = ExportOptions(
        InferenceOptions(salience=strategy),
        salience_match=SalienceMatch(scale=8, bias=-3, coherence=(0.7, 1.0)),
        hubness=ReferenceTexts(WEIGHT, TEXTS),
        frame_hubness=WEIGHT,
    )
    provenance = Provenance(recipe="{}", data=(), weights=(), commit="unknown", metrics={})
    manifest = export_bundle(folder, "lgdn", model, tokenizer_file, provenance, options)
    assert manifest.salience_dim == plain.frames(frames).salience.shape[1] + 1
    assert manifest.salience_match == options.salience_match
    exported = BundleEncoder(Bundle.open(folder))
    # Weights are stored in half precision and in bytes.
    stored = exported.frames(frames).salience @ exported.texts(TEXTS).salience.T
    np.testing.assert_allclose(stored, expected, atol=0.05)


def test_a_correction_of_frames_needs_reference_texts() -> None:
    with pytest.raises(InputError, match=r"frame_hubness_weight is 0\.5, but there are no reference texts"):
        ExportOptions(frame_hubness=0.5)
