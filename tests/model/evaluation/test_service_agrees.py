"""Search through the service equals `reelfind-model evaluate` on the same corpus: a real library, indexed and
searched, against the same videos measured by the training side.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import pytest

pytest.importorskip("torch")

from indexer.options import IndexOptions
from indexer.run import index_paths
from model.evaluation.corpus import TokenOptions, encode_all_texts, encode_videos
from model.evaluation.encoders import bundle_encoder
from model.evaluation.measure import Measurement, Options
from model.evaluation.rerank import best_of_videos
from model.runtime.bundle import Bundle, HubnessCorrection
from model.runtime.bundle.manifest import SalienceMatch
from model.runtime.errors import InputError
from service.live import open_searcher
from service.search.searcher import Searcher, SearchOptions
from service.settings import load_settings
from tests.support.toy_bundle import COLOURS, make_toy_bundle, unit

LAMBDA = 2.5
TEXTS = [
    "red",
    "blue and white",
    "a green one",
    "yellow cyan",
    "black",
    "magenta in the dark",
    "the unknown",
]


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty films of scenes with a colour a quarter; three are longer than a segment."""
    folder = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(0)
    for i in range(20):
        longest = 30.0 if i % 7 == 6 else 2.0
        scenes = [(rng.integers(0, 8, 4), rng.uniform(0.3, longest)) for _ in range(rng.integers(1, 6))]
        film(folder / f"{i:02}.mp4", scenes)
    return folder


def film(path: Path, scenes: list[tuple[np.ndarray, float]], fps: int = 4) -> None:
    """Write a video: for each scene the colours of its four quarters, and its seconds."""
    colours = np.array(list(COLOURS.values()), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for quarters, seconds in scenes:
            pixels = colours[quarters].reshape(2, 2, 3).repeat(32, axis=0).repeat(32, axis=1)
            for _ in range(max(1, round(seconds * fps))):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


#: How tokens are stored.
StoredType = Literal["int8", "float32"]


def library(
    media: Path, folder: Path, tokens: StoredType | None, per_frame: int | None, **bundle: Any
) -> Searcher:
    place = make_toy_bundle(folder / "bundle", ensemble_lambda=LAMBDA, **bundle)
    options = IndexOptions(workers=0, tokens=tokens, tokens_per_frame=per_frame)
    index_paths([media], folder / "library", Bundle.open(place, threads=1), options, lambda _event: None)
    # The evaluation takes the nearest candidates, of whatever video.
    settings = {"library": folder / "library", "bundle": place, "max_video_share": 1.0}
    return open_searcher(load_settings(settings))


def measured(searcher: Searcher, options: Options) -> Measurement:
    """The library's videos, read and encoded anew, in the library's order."""
    encoder = bundle_encoder(Bundle.open(searcher.bundle.folder, threads=1))
    paths = [Path(video.path) for video in searcher.snapshot.videos(0, 100)]
    filled = options.filled(encoder)
    has_tokens = encoder.bundle.manifest.tokens is not None
    texts = encode_all_texts(encoder, TEXTS, tokens=has_tokens)
    corpus = encode_videos(encoder, paths, filled.tokens if has_tokens else None)
    work = Measurement(encoder, texts, corpus, np.arange(len(TEXTS)), options)
    work.score([work.whole()])
    return work


@pytest.mark.parametrize(
    ("tokens", "per_frame"), [("int8", None), ("int8", 3), ("float32", None), ("float32", 2)]
)
def test_search_equals_evaluation(
    media: Path, tmp_path: Path, tokens: StoredType, per_frame: int | None
) -> None:
    searcher = library(media, tmp_path, tokens, per_frame)
    assert searcher.snapshot.num_segments > 20
    for num_candidates, num_salient in ((1000, 2), (6, 2), (6, 1), (11, 16)):
        asked = SearchOptions(num_candidates=num_candidates, num_salient_frames=num_salient)
        found = searcher.rank_all(TEXTS, asked)
        options = Options(
            num_candidates=num_candidates,
            num_salient_frames=num_salient,
            tokens=TokenOptions(tokens, per_frame),
        )
        work = measured(searcher, options)
        expected, _ = work.ranking(work.whole()).scores(LAMBDA)
        assert found.ensemble is not None
        np.testing.assert_allclose(found.ensemble, expected, atol=2e-4)
        # The same order too, down to scores that agree to the last digit that counts.
        for have, want in zip(found.ensemble, expected, strict=True):
            order = np.argsort(-have, kind="stable")
            assert (np.diff(want[order]) <= 2e-4).all()


@pytest.fixture(scope="module")
def correction() -> HubnessCorrection:
    """Reference texts that are nearer to some colours than to others."""
    near = np.random.default_rng(3).uniform(0, 1, (40, len(COLOURS))) * np.arange(1, 9)
    return HubnessCorrection(0.6, 10, unit(near))


def test_search_equals_evaluation_with_a_hubness_correction(
    media: Path, tmp_path: Path, correction: HubnessCorrection
) -> None:
    searcher = library(media, tmp_path, "int8", None, hubness=correction)
    found = searcher.rank_all(TEXTS, SearchOptions(num_candidates=6))
    work = measured(searcher, Options(num_candidates=6))
    whole = work.whole()
    np.testing.assert_allclose(
        found.similarity, best_of_videos(work.similarity, work.corpus.owner), atol=2e-6
    )
    expected, _ = work.ranking(whole).scores(LAMBDA)
    assert found.ensemble is not None
    np.testing.assert_allclose(found.ensemble, expected, atol=2e-4)
    # Another weight, such as one that is tried on a validation split, gives what a library of it would.
    other = replace(correction, weight=0.0)
    plain = library(media, tmp_path / "plain", "int8", None).rank_all(TEXTS).similarity
    work = measured(searcher, Options(hubness=other))
    np.testing.assert_allclose(plain, best_of_videos(work.similarity, work.corpus.owner), atol=2e-6)
    assert np.abs(plain - found.similarity).max() > 0.1


def test_search_equals_evaluation_with_a_match_by_salience(media: Path, tmp_path: Path) -> None:
    match = SalienceMatch(scale=9.0, bias=-4.0)
    searcher = library(media, tmp_path, None, None, matcher=False, salience_match=match)
    assert searcher.snapshot.tokens_per_frame == 0
    for num_candidates, num_salient in ((1000, 2), (6, 1)):
        asked = SearchOptions(num_candidates=num_candidates, num_salient_frames=num_salient)
        found = searcher.rank_all(TEXTS, asked).ensemble
        work = measured(searcher, Options(num_candidates=num_candidates, num_salient_frames=num_salient))
        expected, _ = work.ranking(work.whole()).scores(LAMBDA)
        assert found is not None
        np.testing.assert_allclose(found, expected, atol=3e-3)
        for have, want in zip(found, expected, strict=True):
            order = np.argsort(-have, kind="stable")
            assert (np.diff(want[order]) <= 3e-3).all()


@pytest.mark.parametrize("match", [None, SalienceMatch(scale=9.0, bias=-4.0)], ids=["plain", "salience"])
def test_search_equals_evaluation_with_a_video_encoder(
    media: Path, tmp_path: Path, match: SalienceMatch | None
) -> None:
    kind = True if match is None else "salience"
    searcher = library(media, tmp_path, None, None, video=kind, salience_match=match)
    found = searcher.rank_all(TEXTS, SearchOptions(num_candidates=6))
    work = measured(searcher, Options(num_candidates=6))
    similarity = best_of_videos(work.similarity, work.corpus.owner)
    np.testing.assert_allclose(found.similarity, similarity, atol=2e-6)
    assert (found.ensemble is None, work.options.rerank) == (match is None, match is not None)
    if found.ensemble is None:
        with pytest.raises(InputError, match="match is salience, but the model reads whole segments"):
            measured(searcher, Options(match="salience"))
        return
    expected, _ = work.ranking(work.whole()).scores(LAMBDA)
    np.testing.assert_allclose(found.ensemble, expected, atol=3e-3)


def test_the_order_of_the_hits_is_that_of_the_evaluation(media: Path, tmp_path: Path) -> None:
    searcher = library(media, tmp_path, "int8", None)
    work = measured(searcher, Options(num_candidates=9))
    scores, _ = work.ranking(work.whole()).scores(LAMBDA)
    files = [video.path for video in searcher.snapshot.videos(0, 100)]
    for text, row in zip(TEXTS, scores, strict=True):
        hits = searcher.search(text, 100, SearchOptions(num_candidates=9)).hits
        assert [hit.score for hit in hits] == pytest.approx(
            [row[files.index(hit.path)] for hit in hits], abs=2e-4
        )
        assert sorted(hit.path for hit in hits) == files


def test_tokens_that_are_kept_otherwise_score_otherwise(media: Path, tmp_path: Path) -> None:
    """What the first test would not notice if evaluation ignored how tokens are kept."""
    searcher = library(media, tmp_path, "int8", 2)
    found = searcher.rank_all(TEXTS).ensemble
    assert found is not None
    work = measured(searcher, Options(tokens=TokenOptions("float32", 4)))
    exact, _ = work.ranking(work.whole()).scores(LAMBDA)
    assert np.abs(found - exact).max() > 0.01


def test_a_bundle_says_how_many_tokens_both_keep(media: Path, tmp_path: Path) -> None:
    searcher = library(media, tmp_path, "int8", None, stored_tokens_per_frame=3)
    assert searcher.snapshot.tokens_per_frame == 3
    work = measured(searcher, Options())
    assert work.corpus.tokens is not None
    assert work.corpus.tokens.per_frame == 3
    expected, _ = work.ranking(work.whole()).scores(LAMBDA)
    found = searcher.rank_all(TEXTS).ensemble
    assert found is not None
    np.testing.assert_allclose(found, expected, atol=2e-4)
