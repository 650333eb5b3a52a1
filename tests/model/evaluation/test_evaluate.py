"""Evaluation on photos and videos, on a model whose answers are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")

from model.data.stills import read_stills
from model.evaluation.corpus import FrameTokens, TokenOptions, encode_all_texts, encode_corpus
from model.evaluation.encoders import BundleEncoder
from model.evaluation.evaluate import evaluate_source, evaluate_videos, tune
from model.evaluation.matching import match_pairs
from model.evaluation.measure import Measurement, Options, settings_of
from model.evaluation.rerank import sweep
from model.runtime.bundle import Bundle, TextEncoding
from model.runtime.ranking import LOGIT_DECIMALS
from model.runtime.tokens import merge_tokens
from tests.support import toy_bundle as toy
from tests.support.tiny_photos import make_photos
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_videos import make_video

RECALLS = ["n", "R@1", "R@5", "R@10", "MdR", "MnR"]
TEXTS = ["red", "a blue one", "green and white", "yellow", "a cyan block in magenta", "black"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> BundleEncoder:
    return BundleEncoder(Bundle.open(make_toy_bundle(tmp_path_factory.mktemp("toy") / "bundle"), threads=1))


@pytest.fixture(scope="module", params=["matcher", "tokens"])
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> BundleEncoder:
    """Without a matcher, with and without the tokens that one reads."""
    path = tmp_path_factory.mktemp("toy") / "plain"
    without_tokens = request.param == "tokens"
    folder = make_toy_bundle(path, tokens=False) if without_tokens else make_toy_bundle(path, matcher=False)
    return BundleEncoder(Bundle.open(folder, threads=1))


def colourful_segments(seed: int = 0) -> list[tuple[int, np.ndarray]]:
    """Seven segments of five videos, each of one to six frames: a colour a quarter, with noise."""
    rng = np.random.default_rng(seed)
    colours = np.array(list(toy.COLOURS.values()), float)
    segments = []
    for owner in (0, 0, 1, 2, 3, 4, 4):
        frames = np.zeros((rng.integers(1, 7), toy.IMAGE_SIZE, toy.IMAGE_SIZE, 3))
        half = toy.IMAGE_SIZE // 2
        for frame in frames:
            for y in (0, half):
                for x in (0, half):
                    frame[y : y + half, x : x + half] = 0.8 * colours[rng.integers(8)] + rng.uniform(0, 50, 3)
        segments.append((owner, frames.astype(np.uint8)))
    return segments


def write_queries(path: Path, rows: list[tuple[str, str, str]]) -> Path:
    lines = [json.dumps({"video": v, "query": q, "set": s}) for v, q, s in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_match_scores_are_means_of_the_most_relevant_frames(encoder: BundleEncoder) -> None:
    segments = colourful_segments()
    texts = encode_all_texts(encoder, TEXTS, tokens=True)
    corpus = encode_corpus(encoder, segments, TokenOptions("float32"))
    wanted = np.ones((len(TEXTS), len(segments)), np.bool_)
    wanted[0, 2] = wanted[3] = False
    numbers = (1, 2, 4, 16)
    found = match_pairs(encoder, texts, corpus, wanted, numbers)
    for q, text in enumerate(TEXTS):
        for g, (_, frames) in enumerate(segments):
            relevance = toy.frame_embedding(frames) @ toy.text_embedding(text)
            best = np.argsort(-relevance, kind="stable")
            logits = [toy.match_logit(text, tokens) for tokens in toy.frame_tokens(frames)[best]]
            for n in numbers:
                if wanted[q, g]:
                    assert found[n][q, g] == pytest.approx(np.mean(logits[:n]), abs=1e-4)
                else:
                    assert np.isnan(found[n][q, g])


def test_a_sweep_over_all_logits_equals_the_pairs(encoder: BundleEncoder) -> None:
    texts = encode_all_texts(encoder, TEXTS, tokens=True)
    corpus = encode_corpus(encoder, colourful_segments(), TokenOptions())
    assert corpus.tokens is not None
    pairs = match_pairs(encoder, texts, corpus, np.ones((len(TEXTS), 7), np.bool_), (1, 3))
    frames = np.arange(len(corpus.salience))
    logits = np.empty((len(TEXTS), len(frames)), np.float32)
    for rows, encoding in texts.parts:
        for i, q in enumerate(rows):
            logits[q] = encoder.match(encoding, np.full(len(frames), i), corpus.tokens.take(frames))
    relevance = texts.salience @ corpus.salience.T
    swept = sweep(logits.round(LOGIT_DECIMALS), relevance, corpus.slots, corpus.counts, (1, 3))
    for n in (1, 3):
        np.testing.assert_allclose(swept[n], pairs[n], atol=1e-5)


def test_frames_of_several_segments_are_matched_once(encoder: BundleEncoder) -> None:
    """A frame that fills many slots costs one pair."""
    calls: list[int] = []

    class Counting(BundleEncoder):
        def match(
            self, text: TextEncoding, text_rows: NDArray[np.int64], frame_tokens: NDArray[np.float32]
        ) -> NDArray[np.float32]:
            calls.append(len(text_rows))
            return super().match(text, text_rows, frame_tokens)

    corpus = encode_corpus(encoder, colourful_segments()[:1], TokenOptions())
    shared = type(corpus)(
        embedding=np.repeat(corpus.embedding, 50, 0),
        owner=np.arange(50),
        slots=np.zeros((50, 3), np.int64),
        counts=np.full(50, 3),
        salience=corpus.salience,
        tokens=corpus.tokens,
    )
    texts = encode_all_texts(encoder, ["red", "blue"], tokens=True)
    match_pairs(Counting(encoder.bundle), texts, shared, np.ones((2, 50), np.bool_), (1, 3))
    assert sum(calls) == 2


def test_tokens_are_kept_as_the_index_keeps_them(encoder: BundleEncoder) -> None:
    frames = np.concatenate([frames for _, frames in colourful_segments()])
    tokens = encoder.frames(frames, tokens=True).tokens
    assert tokens is not None
    rows = np.array([3, 0, 3])
    exact = FrameTokens.keep(tokens, TokenOptions("float32"))
    np.testing.assert_array_equal(exact.take(rows), tokens[rows])
    rounded = FrameTokens.keep(tokens, TokenOptions("int8"))
    assert 0 < np.abs(rounded.take(rows) - tokens[rows]).max() <= 1.01 / 254
    merged = FrameTokens.keep(tokens, TokenOptions("float32", 3))
    assert (len(merged), merged.per_frame) == (len(frames), 3)
    np.testing.assert_array_equal(merged.take(rows), merge_tokens(tokens, 3)[rows])
    # More than there are keeps all of them.
    assert FrameTokens.keep(tokens, TokenOptions("int8", 9)).per_frame == 4
    for wrong, message in ((("int4",), "choose int8 or float32"), (("int8", 0), "keep at least 1")):
        with pytest.raises(ValueError, match=message):
            TokenOptions(*wrong)


def test_the_result_of_a_gallery_is_spelled_out(encoder: BundleEncoder, plain: BundleEncoder) -> None:
    def measured(model: BundleEncoder, **options: Any) -> dict[str, Any]:
        chosen = Options(**options)
        rerank = chosen.filled(model).rerank
        texts = encode_all_texts(model, TEXTS, tokens=rerank)
        corpus = encode_corpus(model, colourful_segments(), TokenOptions() if rerank else None)
        work = Measurement(model, texts, corpus, np.array([0, 1, 2, 3, 4, 4]), chosen)
        work.score([work.whole()])
        return work.metrics(work.whole())

    assert list(measured(plain)) == ["global"]
    assert list(measured(encoder, rerank=False)) == ["global"]
    result = measured(encoder, salient_frames=(1, 4))
    assert list(result) == ["global", "local", "ensemble", "salient_frames"]
    assert list(result["salient_frames"]) == ["2", "1", "4"]
    assert result["salient_frames"]["2"] == {"local": result["local"], "ensemble": result["ensemble"]}
    for block in (result["global"], result["salient_frames"]["4"]["local"]):
        assert list(block) == ["text_to_video", "video_to_text", "R@SUM"]
        assert list(block["text_to_video"]) == list(block["video_to_text"]) == RECALLS
        assert block["text_to_video"]["n"] == 6
        assert block["video_to_text"]["n"] == 5
    assert json.loads(json.dumps(result)) == result
    # λ decides between the two; so much of it leaves the similarity alone.
    drowned = measured(encoder, ensemble_lambda=1e6)
    assert drowned["ensemble"].pop("first_places") == {"gained": 0, "lost": 0, "p": 1.0}
    assert drowned["ensemble"] == drowned["global"]
    by_match = measured(encoder, ensemble_lambda=0.0)["ensemble"]
    changes = by_match.pop("first_places")
    assert by_match == result["local"]
    rises = by_match["text_to_video"]["R@1"] - result["global"]["text_to_video"]["R@1"]
    assert changes["gained"] - changes["lost"] == pytest.approx(rises * 6 / 100)


def test_settings_are_the_models_where_none_are_given(encoder: BundleEncoder, plain: BundleEncoder) -> None:
    assert settings_of(plain, Options()) == {"rerank": False}
    manifest = encoder.bundle.manifest
    assert settings_of(encoder, Options()) == {
        "rerank": True,
        "match": "matcher",
        "mode": "top-k",
        "num_candidates": manifest.num_candidates,
        "num_salient_frames": manifest.num_salient_frames,
        "ensemble_lambda": manifest.ensemble_lambda,
        "tokens": "int8",
        "tokens_per_frame": manifest.stored_tokens_per_frame,
    }
    given = Options(
        mode="all-pairs", num_salient_frames=4, ensemble_lambda=0.0, tokens=TokenOptions("float32", 3)
    )
    assert settings_of(encoder, given) == {
        "rerank": True,
        "match": "matcher",
        "mode": "all-pairs",
        "num_candidates": None,
        "num_salient_frames": 4,
        "ensemble_lambda": 0.0,
        "tokens": "float32",
        "tokens_per_frame": 3,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "some"}, "mode is 'some': choose top-k or all-pairs"),
        ({"num_candidates": 0}, "num_candidates is 0"),
        ({"num_salient_frames": -1}, "num_salient_frames is -1"),
        ({"salient_frames": (1, 0)}, r"salient_frames is \[1, 0\]"),
        ({"ensemble_lambda": -0.5}, "ensemble_lambda is -0.5"),
        ({"ensemble_lambda": float("nan")}, "ensemble_lambda is nan"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**options)


def test_videos_are_ranked_among_their_own_set_and_among_all(encoder: BundleEncoder, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    make_video(clips / "red.mp4", parts=[("red", 1.0)])
    make_video(clips / "blue.mp4", parts=[("blue", 1.0)])
    # Half as red as red.mp4: only the other set holds it.
    make_video(clips / "mixed.mp4", parts=[("red", 1.0), ("green", 1.0)])
    rows = [("red.mp4", "red", "a"), ("blue.mp4", "blue", "a"), ("mixed.mp4", "a red one", "b")]
    queries = write_queries(tmp_path / "queries.jsonl", rows)
    result = evaluate_videos(encoder, clips, queries, Options(rerank=False))
    assert result["a"]["own"]["global"]["text_to_video"]["R@1"] == 100
    assert result["a"]["all"]["global"]["text_to_video"]["n"] == 2
    assert result["a"]["all"]["global"]["video_to_text"]["n"] == 2
    assert result["b"]["own"]["global"]["text_to_video"]["MnR"] == 1
    assert result["b"]["all"]["global"]["text_to_video"]["MnR"] == 2


def test_noise_that_hides_a_video_from_its_embedding_does_not_hide_it_from_the_match(
    encoder: BundleEncoder, tmp_path: Path
) -> None:
    """Seven eighths of a film are something else: the salient frames alone find what was asked for."""
    noise = [("green", 1.75), ("white", 1.75), ("black", 1.75), ("cyan", 1.75)]
    make_video(tmp_path / "film.mp4", parts=[*noise, ("red", 1.0)])
    make_video(tmp_path / "pink.mp4", parts=[("magenta", 2.0), ("yellow", 2.0)])
    rows = [("film.mp4", "red", "a"), ("pink.mp4", "magenta", "a")]
    result = evaluate_videos(encoder, tmp_path, write_queries(tmp_path / "queries.jsonl", rows))
    own = result["a"]["own"]
    assert own["local"]["text_to_video"]["R@1"] == 100
    assert own["ensemble"]["text_to_video"]["R@1"] == 100
    # All 16 frames together are no longer about red.
    flooded = evaluate_videos(
        encoder, tmp_path, tmp_path / "queries.jsonl", Options(salient_frames=(16,), ensemble_lambda=0.0)
    )
    sweeps = flooded["a"]["own"]["salient_frames"]
    assert sweeps["16"]["local"]["text_to_video"]["MnR"] > sweeps["2"]["local"]["text_to_video"]["MnR"]


def test_a_long_video_scores_as_its_best_segment(encoder: BundleEncoder, tmp_path: Path) -> None:
    make_video(tmp_path / "long.mp4", parts=[("blue", 33.0), ("red", 33.0)], fps=2)
    make_video(tmp_path / "purple.mp4", parts=[("red", 2.0), ("blue", 2.0)])
    rows = [("long.mp4", "red", "a"), ("purple.mp4", "blue", "a")]
    queries = write_queries(tmp_path / "queries.jsonl", rows)
    result = evaluate_videos(encoder, tmp_path, queries, Options(rerank=False))
    # By its mean over the whole, long.mp4 would look like purple.mp4.
    assert result["a"]["own"]["global"]["text_to_video"]["MnR"] == 1.5


@pytest.mark.filterwarnings("ignore:.*score the same as others")
def test_photos_count_every_caption_and_every_photo(encoder: BundleEncoder, tmp_path: Path) -> None:
    photos = read_stills(make_photos(tmp_path / "data"), "val")
    metrics = evaluate_source(encoder, photos, Options(num_candidates=5))
    for block in metrics.values():
        assert block["text_to_video"]["n"] == 48
        assert block["video_to_text"]["n"] == 24


@pytest.mark.filterwarnings("ignore:.*score the same as others")
def test_lambda_is_tuned_on_photos(encoder: BundleEncoder, plain: BundleEncoder, tmp_path: Path) -> None:
    photos = read_stills(make_photos(tmp_path / "data"), "val")
    tuned = tune(encoder, photos, Options(mode="all-pairs"))
    rows = {row["lambda"]: row for row in tuned["tried"]}
    chosen = rows[tuned["ensemble_lambda"]]
    assert (chosen["R@1"], chosen["R@SUM"]) == max((r["R@1"], r["R@SUM"]) for r in tuned["tried"])
    options = Options(mode="all-pairs", ensemble_lambda=tuned["ensemble_lambda"])
    assert evaluate_source(encoder, photos, options)["ensemble"]["R@SUM"] == pytest.approx(chosen["R@SUM"])
    with pytest.raises(ValueError, match="no matcher, so there is no λ to tune"):
        tune(plain, photos)


def test_texts_keep_their_order(encoder: BundleEncoder) -> None:
    texts = ["red and a longer text of more words", "blue", "a green one", "red"] * 40
    single = [encoder.texts([text], tokens=True) for text in texts]
    encoded = encode_all_texts(encoder, texts, tokens=True)
    np.testing.assert_allclose(
        encoded.embedding, np.concatenate([one.embedding for one in single]), atol=1e-6
    )
    np.testing.assert_allclose(encoded.salience, np.concatenate([one.salience for one in single]), atol=1e-6)
    for rows, part in encoded.parts:
        assert part.tokens is not None
        for row, tokens, mask in zip(rows, part.tokens, part.attention_mask, strict=True):
            alone = single[row].tokens
            assert alone is not None
            np.testing.assert_allclose(tokens[mask == 1], alone[0], atol=1e-6)


def test_segments_are_encoded_in_passes_that_cross_them(encoder: BundleEncoder) -> None:
    rng = np.random.default_rng(0)
    sizes = [16, 1, 16, 16, 7, 16, 3]
    segments = [(i, rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)) for i, n in enumerate(sizes)]
    corpus = encode_corpus(encoder, segments, TokenOptions("float32"))
    assert corpus.counts.tolist() == sizes
    assert corpus.tokens is not None
    for i, (_, frames) in enumerate(segments):
        own = corpus.slots[i, : sizes[i]]
        expected = encoder.frames(frames, tokens=True)
        np.testing.assert_allclose(corpus.salience[own], expected.salience, atol=5e-4)
        assert expected.tokens is not None
        np.testing.assert_allclose(corpus.tokens.take(own), expected.tokens, atol=1e-6)
        joined = encoder.segments(expected.embedding[None], np.ones((1, sizes[i]), np.float32))[0]
        np.testing.assert_allclose(corpus.embedding[i], joined, atol=1e-6)
    with pytest.raises(ValueError, match="no segment to encode"):
        encode_corpus(encoder, [])


def test_queries_that_are_missing_or_malformed_are_named(encoder: BundleEncoder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.jsonl cannot be read as text"):
        evaluate_videos(encoder, tmp_path, tmp_path / "none.jsonl")
    bad = tmp_path / "bad.jsonl"
    for content, message in (
        ('{"video": "a.mp4", "query": "a"}\n{"video": "b.mp4"}\n', r'line 2: "query" is missing'),
        ('{"video": "a.mp4", "query": "a"}\n\nred\n', "line 3 is not JSON"),
        ("[1]\n", r"line 1 holds \[1\]"),
        ("\n\n", "holds no query"),
    ):
        bad.write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            evaluate_videos(encoder, tmp_path, bad)
