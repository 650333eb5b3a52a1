"""How a bundle re-ranks is chosen on validation: what is told is what an evaluation measures."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")

from model.data.sources import Source
from model.data.stills import read_stills
from model.evaluation.choosing import choose, fit_salience_match, tuned_table
from model.evaluation.corpus import encode_all_texts, encode_corpus
from model.evaluation.encoders import BundleEncoder
from model.evaluation.evaluate import evaluate_source, measurement_of
from model.evaluation.matching import salience_match
from model.evaluation.measure import Options
from model.evaluation.rerank import LAMBDA_GRID
from model.evaluation.spliced import NOISY, SplicedFilms, splice_films
from model.runtime.bundle import Bundle
from model.runtime.bundle.manifest import SalienceMatch
from model.runtime.errors import InputError
from tests.model.evaluation.test_evaluate import TEXTS, colourful_segments
from tests.support import toy_bundle as toy
from tests.support.toy_bundle import make_toy_bundle

pytestmark = pytest.mark.filterwarnings("ignore:.*score the same as others")


@pytest.fixture(scope="module", params=[True, False], ids=["matcher", "no_matcher"])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> BundleEncoder:
    folder = make_toy_bundle(tmp_path_factory.mktemp("toy") / "bundle", matcher=request.param)
    return BundleEncoder(Bundle.open(folder, threads=1))


@pytest.fixture(scope="module")
def galleries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Source | SplicedFilms]:
    """Sixteen photos, of a colour each or of two, and films of eight of them."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "images").mkdir()
    rows = ["image,split,caption"]
    names = list(toy.COLOURS)
    for first, second in (
        [(name, name) for name in names] + list(itertools.pairwise(names)) + [("red", "blue")]
    ):
        pixels = np.empty((32, 32, 3), np.uint8)
        pixels[:20], pixels[20:] = toy.COLOURS[first], toy.COLOURS[second]
        Image.fromarray(pixels).save(folder / "images" / f"{first}_{second}.png")
        rows.append(f"{first}_{second}.png,val,{first} {first} {second}")
    (folder / "captions.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    photos = read_stills(folder, "val")
    return {"photos": photos, "films": splice_films(photos, 8, 8, NOISY, 16, seed=3)}


def test_the_match_by_salience_is_the_mean_relevance_of_the_most_relevant_frames(
    encoder: BundleEncoder,
) -> None:
    segments = colourful_segments()
    texts, corpus = encode_all_texts(encoder, TEXTS), encode_corpus(encoder, segments)
    wanted = np.ones((len(TEXTS), len(segments)), np.bool_)
    wanted[0, 2] = wanted[3] = False
    similarity = texts.embedding @ corpus.embedding.T
    found = salience_match(texts, corpus, wanted, (1, 2, 16), SalienceMatch(scale=5, bias=-2), similarity)
    for q, text in enumerate(TEXTS):
        for g, (_, frames) in enumerate(segments):
            best = np.sort(toy.frame_embedding(frames) @ toy.text_embedding(text))[::-1]
            for n, scores in found.items():
                if wanted[q, g]:
                    assert scores[q, g] == pytest.approx(5 * best[:n].mean() - 2, abs=2e-3)
                else:
                    assert np.isnan(scores[q, g])


def test_in_coherent_videos_the_similarity_takes_the_place_of_the_relevance(encoder: BundleEncoder) -> None:
    segments = colourful_segments()
    texts, corpus = encode_all_texts(encoder, TEXTS), encode_corpus(encoder, segments)
    similarity = np.random.default_rng(0).random((len(TEXTS), len(segments)), np.float32)
    wanted = np.ones(similarity.shape, np.bool_)
    low, high = 0.75, 0.99
    match = SalienceMatch(scale=5, bias=-2, coherence=(low, high))
    found = salience_match(texts, corpus, wanted, (2,), match, similarity)[2]
    shares = []
    for g, (_, frames) in enumerate(segments):
        vectors = [v / np.linalg.norm(v) for v in toy.frame_embedding(frames)]
        alike = float(np.linalg.norm(np.mean(vectors, axis=0)))
        share = min(1.0, max(0.0, (high - alike) / (high - low)))
        shares.append(share)
        for q, text in enumerate(TEXTS):
            best = np.sort(toy.frame_embedding(frames) @ toy.text_embedding(text))[::-1][:2].mean()
            blended = share * best + (1 - share) * similarity[q, g]
            assert found[q, g] == pytest.approx(5 * blended - 2, abs=2e-2)
    assert min(shares) == 0.0
    assert max(shares) > 0.0


def test_the_fitted_match_is_the_likeliest(
    encoder: BundleEncoder, galleries: dict[str, Source | SplicedFilms]
) -> None:
    measurement = measurement_of(encoder, galleries["films"])
    found = fit_salience_match([measurement], seed=1)
    assert found == fit_salience_match([measurement], seed=1)
    # The same pairs, drawn by a naive twin.
    relevance = measurement.texts.salience @ measurement.corpus.salience.T
    rng = np.random.default_rng(1)
    count = len(measurement.target)
    drawn = rng.integers(1, count, (count, 16))
    values, labels = [], []
    for q, own in enumerate(measurement.target):
        others = [(own + step) % count for step in drawn[q]]
        wrong = max(others, key=lambda g: (measurement.similarity[q, g], -others.index(g)))
        for segment, label in ((own, 1), (wrong, 0)):
            slots = measurement.corpus.slots[segment, : measurement.corpus.counts[segment]]
            values.append(np.sort(relevance[q, slots])[::-1][:2].mean())
            labels.append(label)

    def likelihood(scale: float, bias: float) -> float:
        logits = scale * np.array(values) + bias
        return float(-np.logaddexp(0, np.where(labels, -logits, logits)).sum())

    best = likelihood(found.scale, found.bias)
    for scale in (0.8, 1.0, 1.25):
        for bias in (-0.5, 0.0, 0.5):
            assert likelihood(found.scale * scale, found.bias + bias) <= best + 1e-2
    assert likelihood(1.0, 0.0) < best


@pytest.mark.parametrize("match", ["matcher", "salience"])
def test_what_is_chosen_is_the_best_of_all_evaluations(
    encoder: BundleEncoder, galleries: dict[str, Source | SplicedFilms], match: str
) -> None:
    options = Options(match=match, num_salient_frames=1, salient_frames=(3,))  # type: ignore[arg-type]
    if match == "matcher" and not encoder.has_matcher:
        with pytest.raises(InputError, match="no matcher: choose the match salience"):
            choose(encoder, galleries, options)
        return
    result = choose(encoder, galleries, options)
    settings, tuned = result["settings"], result["tuned"]
    fitted = settings.get("salience_match")
    quality = {}
    for n in (1, 3):
        for lam in (*LAMBDA_GRID[::5], settings["ensemble_lambda"]):
            asked = Options(
                match=options.match,
                salience_match=None if fitted is None else SalienceMatch(**fitted),
                num_salient_frames=n,
                ensemble_lambda=lam,
            )
            results = {name: evaluate_source(encoder, source, asked) for name, source in galleries.items()}
            first = {name: r["ensemble"]["text_to_video"]["R@1"] for name, r in results.items()}
            lost = max(r["global"]["text_to_video"]["R@1"] - first[name] for name, r in results.items())
            quality[n, lam] = lost <= 0.5, float(np.mean(list(first.values())))
            if (n, lam) == (settings["num_salient_frames"], settings["ensemble_lambda"]):
                row = next(
                    row
                    for row in tuned["tried"]
                    if (row["num_salient_frames"], row["salience_match"]) == (n, fitted)
                )
                assert row["recalls"] == first
                assert tuned["global"] == {
                    name: r["global"]["text_to_video"]["R@1"] for name, r in results.items()
                }
    assert quality[settings["num_salient_frames"], settings["ensemble_lambda"]] == max(quality.values())
    table = tuned_table(result)
    assert "n: photos 16, films 8" in table
    assert f"{settings['num_salient_frames']} salient frames, λ = {settings['ensemble_lambda']:g}" in table
