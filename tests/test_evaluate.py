"""Evaluation on photos and videos, on a model whose answers are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from model.data import read_captions
from model.evaluate import BundleEncoder, encode_texts, evaluate_photos, evaluate_videos
from model.runtime.bundle import Bundle
from tests.tiny_training import make_photos
from tests.toy import make_toy_bundle, make_video


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> BundleEncoder:
    return BundleEncoder(Bundle.open(make_toy_bundle(tmp_path_factory.mktemp("toy") / "bundle")))


def write_queries(path: Path, rows: list[tuple[str, str, str]]) -> Path:
    lines = [json.dumps({"video": v, "query": q, "set": s}) for v, q, s in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_videos_are_ranked_among_their_own_set_and_among_all(encoder: BundleEncoder, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    make_video(clips / "red.mp4", parts=[("red", 1.0)])
    make_video(clips / "blue.mp4", parts=[("blue", 1.0)])
    # Half as red as red.mp4: only the other set holds it.
    make_video(clips / "mixed.mp4", parts=[("red", 1.0), ("green", 1.0)])
    rows = [("red.mp4", "red", "a"), ("blue.mp4", "blue", "a"), ("mixed.mp4", "a red one", "b")]
    result = evaluate_videos(encoder, clips, write_queries(tmp_path / "queries.jsonl", rows))
    assert result["a"]["own"]["text_to_video"]["R@1"] == 100
    assert result["a"]["all"]["text_to_video"]["n"] == 2
    assert result["b"]["own"]["text_to_video"]["MnR"] == 1
    assert result["b"]["all"]["text_to_video"]["MnR"] == 2


def test_a_long_video_scores_as_its_best_segment(encoder: BundleEncoder, tmp_path: Path) -> None:
    make_video(tmp_path / "long.mp4", parts=[("blue", 33.0), ("red", 33.0)], fps=2)
    make_video(tmp_path / "purple.mp4", parts=[("red", 2.0), ("blue", 2.0)])
    rows = [("long.mp4", "red", "a"), ("purple.mp4", "blue", "a")]
    result = evaluate_videos(encoder, tmp_path, write_queries(tmp_path / "queries.jsonl", rows))
    # By its mean over the whole, long.mp4 would look like purple.mp4.
    assert result["a"]["own"]["text_to_video"]["MnR"] == 1.5


@pytest.mark.filterwarnings("ignore:.*score the same as others")
def test_photos_count_every_caption_and_every_photo(encoder: BundleEncoder, tmp_path: Path) -> None:
    photos = read_captions(make_photos(tmp_path / "data"), "val")
    metrics = evaluate_photos(encoder, photos)
    assert metrics["text_to_video"]["n"] == 48
    assert metrics["video_to_text"]["n"] == 24


def test_texts_keep_their_order(encoder: BundleEncoder) -> None:
    texts = ["red and a longer text of more words", "blue", "a green one", "red"] * 40
    single = np.concatenate([encoder.texts([text]) for text in texts])
    np.testing.assert_allclose(encode_texts(encoder, texts), single, atol=1e-6)


def test_queries_that_are_missing_or_malformed_are_named(encoder: BundleEncoder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no queries at .*none\.jsonl"):
        evaluate_videos(encoder, tmp_path, tmp_path / "none.jsonl")
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"video": "a.mp4", "query": "a"}\n{"video": "b.mp4"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match="line 2 lacks video or query"):
        evaluate_videos(encoder, tmp_path, bad)
