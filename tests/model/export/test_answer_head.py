"""Bundles with an answer head answer as the model that they were exported from."""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from indexer.library.snapshot import Snapshot
from indexer.options import IndexOptions
from indexer.run import index_paths
from model.evaluation.encoders import BundleEncoder
from model.export.bundle import ExportOptions, StorageChoice, export_bundle
from model.families import get_family
from model.families.base import InferenceOptions
from model.families.encoder import AnswersQuestions
from model.families.lgdn_qa.encoder import AnsweringTowers
from model.families.lgdn_qa.family import LGDNAnswersFamily
from model.runtime.bundle import Answers, Bundle
from model.runtime.errors import InputError
from model.runtime.preprocessing import TextTokenizer
from model.runtime.video import VideoReader
from service.search.answering import AnswerOptions, answer_question
from tests.support.exported_lgdn import PROVENANCE
from tests.support.tiny_lgdn_qa import ANSWERS, answer_model
from tests.support.toy_videos import make_video

pytestmark = pytest.mark.slow

EXACT = StorageChoice("float32", "float32", "float32", "float32")
QUESTIONS = ["a red block left", "blue", "is tall"]


@dataclass(frozen=True)
class Exported:
    """A model in memory, and the bundle that was exported from it."""

    ours: AnsweringTowers
    bundle: Bundle


@pytest.fixture(
    scope="module",
    params=[
        (
            {"tune_towers": False, "inference_weights": "momentum"},
            {"image_query", "salient_frames", "match", "answers"},
        ),
        (
            {"fusion": "cross_attention", "salience_strategy": "simdot"},
            {"image_query", "salient_frames", "answers"},
        ),
    ],
    ids=["frozen, joint fusion", "tuned, the paper's fusion"],
)
def exported(
    request: pytest.FixtureRequest, tokenizer: Path, tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    settings, capabilities = request.param
    model = answer_model(context_length=16, **settings).eval()
    folder, options = tmp_path_factory.mktemp("exported") / "bundle", ExportOptions(storage=EXACT)
    export_bundle(folder, "lgdn_qa", copy.deepcopy(model), tokenizer, PROVENANCE, options)
    bundle = Bundle.open(folder, threads=1)
    assert bundle.capabilities == capabilities
    ours = LGDNAnswersFamily().encoder(model, TextTokenizer.from_file(tokenizer, 16))
    assert isinstance(ours, AnsweringTowers)
    return Exported(ours, bundle)


def logits_of(encoder: AnsweringTowers | BundleEncoder) -> np.ndarray:
    assert isinstance(encoder, AnswersQuestions)
    frames = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    tokens = encoder.frames(frames, tokens=True).tokens
    assert tokens is not None
    text = encoder.texts(QUESTIONS, tokens=True)
    mask = np.array([[1, 1], [1, 0], [1, 1]], np.float32)
    return encoder.answer(text, np.array([0, 1, 2]), tokens.reshape(3, 2, *tokens.shape[1:]), mask)


def test_a_bundle_answers_as_its_model(exported: Exported) -> None:
    ours, bundle = exported.ours, exported.bundle
    assert {"answers.json", "answer_head.onnx"} <= bundle.manifest.files.keys()
    assert bundle.vocabulary == ANSWERS
    assert ours.has_matcher == ("match" in bundle.capabilities)
    expected = logits_of(ours)
    assert np.abs(expected).max() > 0.05
    np.testing.assert_allclose(logits_of(BundleEncoder(bundle)), expected, atol=1e-4)


def test_the_service_answers_as_the_model(exported: Exported, tmp_path: Path) -> None:
    """From a film's file to the answer, beside PyTorch on the frames that it decodes."""
    ours, bundle = exported.ours, exported.bundle
    film = make_video(tmp_path / "film.mkv", parts=[("red", 1.0), ("blue", 1.0), ("white", 1.0)], fps=5)
    sizes = bundle.token_sizes()
    indexing = IndexOptions(workers=0, tokens="float32", tokens_per_frame=sizes.tokens_per_frame)
    index_paths([film], tmp_path / "library", bundle, indexing, lambda _: None)
    snapshot = Snapshot.open(tmp_path / "library")
    (video,) = snapshot.videos(0, 1)

    shape = bundle.manifest
    with VideoReader(film) as reader:
        (segment,) = reader.segments(shape.segment_seconds, shape.frames_per_segment)
    frames = ours.frames(shape.image.resizing.frames(segment.frames.data), tokens=True)
    assert frames.tokens is not None
    for question, count in itertools.product(QUESTIONS, (1, 3, 16)):
        asked = AnswerOptions(top_k=99, num_salient_frames=count)
        result = answer_question(bundle, snapshot, video.video_id, question, asked)
        text = ours.texts([question], tokens=True)
        # Frames of one colour are the same; half precision decides among them, and changes no answer.
        best = np.argsort(-(frames.salience @ text.salience[0]).round(3), kind="stable")[:count]
        mask = np.ones((1, len(best)), np.float32)
        logits = ours.answer(text, np.zeros(1, np.int64), frames.tokens[best][None], mask)
        expected = Answers(ANSWERS, logits).best(99)[0]
        found = {each.answer: each.probability for each in result.answers}
        assert found == pytest.approx(dict(expected), abs=1e-3)


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
