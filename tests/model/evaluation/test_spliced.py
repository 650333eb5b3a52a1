"""Films to measure on: each distinct frame is encoded once, with the result of encoding every film whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from typer.testing import CliRunner

from model.cli import app
from model.data.stills import read_stills
from model.evaluation.corpus import TokenOptions, encode_corpus
from model.evaluation.encoders import BundleEncoder, bundle_encoder
from model.evaluation.evaluate import evaluate_source, tune
from model.evaluation.spliced import NOISY, SplicedFilms, encode_films, splice_films, splice_items
from model.runtime.bundle import Bundle
from model.runtime.errors import InputError
from tests.support.toy_bundle import make_toy_bundle

pytestmark = pytest.mark.filterwarnings("ignore:.*score the same as others")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> BundleEncoder:
    return BundleEncoder(Bundle.open(make_toy_bundle(tmp_path_factory.mktemp("toy") / "bundle"), threads=1))


@pytest.fixture(scope="module")
def films(data: Path, encoder: BundleEncoder) -> SplicedFilms:
    return splice_films(read_stills(data, "val"), 12, 10, NOISY, encoder.profile.frames_per_segment, seed=3)


def test_a_film_shows_its_photo_among_others(films: SplicedFilms) -> None:
    for (row,), slots, count in zip(films.rows, films.slots, films.counts, strict=True):
        shown = films.plan.images[slots[:count]]
        own = [bool((pair == row).all()) for pair in shown]
        assert any(own)
        assert not all(own)
        first, last = own.index(True), count - 1 - own[::-1].index(True)
        assert all(own[first : last + 1]), "the captioned part is in one piece"
        others = {int(photo) for pair in shown for photo in pair} - {int(row)}
        assert not others & {int(r) for (r,) in films.rows}, "another film's photo would be a second answer"


@pytest.mark.parametrize("slots", [2, 4, 15])
def test_films_fit_a_model_with_few_frame_slots(data: Path, slots: int) -> None:
    films = splice_films(read_stills(data, "val"), 12, 10, NOISY, slots, seed=3)
    assert films.slots.shape == (12, slots)
    assert 2 <= films.counts.min() <= films.counts.max() <= slots


def test_a_model_with_a_single_frame_slot_cannot_see_a_film(data: Path) -> None:
    with pytest.raises(InputError, match="a film needs at least 2 frames, this model's segments have 1"):
        splice_films(read_stills(data, "val"), 12, 10, NOISY, 1, seed=3)


def test_films_encode_as_if_each_were_encoded_whole(films: SplicedFilms, encoder: BundleEncoder) -> None:
    frames = np.stack(list(films.frames(encoder.profile.resizing.size)))
    whole = encode_corpus(
        encoder,
        [(i, frames[films.slots[i, :n]]) for i, n in enumerate(films.counts)],
        TokenOptions("float32"),
    )
    once = encode_films(encoder, films, TokenOptions("float32"))
    np.testing.assert_allclose(once.embedding, whole.embedding, atol=1e-5)
    assert once.tokens is not None
    assert whole.tokens is not None
    for i, n in enumerate(films.counts):
        slots_once, slots_whole = once.slots[i, :n], whole.slots[i, :n]
        np.testing.assert_allclose(once.salience[slots_once], whole.salience[slots_whole], atol=1e-5)
        np.testing.assert_allclose(once.tokens.take(slots_once), whole.tokens.take(slots_whole), atol=1e-5)


def test_films_encode_the_same_by_whole_segments(
    films: SplicedFilms, encoder: BundleEncoder, tmp_path: Path
) -> None:
    bundle = Bundle.open(make_toy_bundle(tmp_path / "video", video="salience"), threads=1)
    expected, found = (encode_films(each, films) for each in (encoder, bundle_encoder(bundle)))
    np.testing.assert_allclose(found.embedding, expected.embedding, atol=1e-5)
    np.testing.assert_array_equal(found.counts, expected.counts)
    for i, n in enumerate(films.counts):
        ours, theirs = (each.salience[each.slots[i, :n]] for each in (found, expected))
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_films_are_measured_and_tuned_on(films: SplicedFilms, encoder: BundleEncoder) -> None:
    result = evaluate_source(encoder, films)
    assert result["ensemble"]["text_to_video"]["n"] == 12
    tuned = tune(encoder, films)
    best = max(row["R@1"] for row in tuned["tried"])
    assert best == next(r["R@1"] for r in tuned["tried"] if r["lambda"] == tuned["ensemble_lambda"])


def test_the_command_measures_films(data: Path, encoder: BundleEncoder) -> None:
    words = ["evaluate", "films", str(encoder.bundle.folder), "--data", str(data), "--split", "val", "--json"]
    ran = CliRunner().invoke(app, [*words, "--films", "12", "--film-noise", "10", "--threads", "1"])
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["films"]["val"]["global"]["text_to_video"]["n"] == 12
    refused = CliRunner().invoke(app, [*words, "--films", "20", "--film-noise", "10"])
    assert refused.exit_code == 2
    assert "20 films and 10 unrelated photos need more than 24 photos" in refused.stderr


def test_films_of_several_items_show_each_in_turn_and_have_a_query_for_each(data: Path) -> None:
    stills = read_stills(data, "val")
    films = splice_items(stills, 3, NOISY.views, 16, seed=3)
    assert len(films.counts) == len(stills) // 3
    assert len(set(films.rows.ravel().tolist())) == films.rows.size, "an item is in one film"
    assert set(films.counts.tolist()) == {15}
    for rows, slots, captions in zip(films.rows, films.slots, films.captions, strict=True):
        shown = films.plan.images[slots[:15]]
        assert (shown[:, 0] == shown[:, 1]).all(), "nothing is mixed"
        owners = stills.owners[shown[:, 0]]
        assert owners.tolist() == np.repeat(rows, 5).tolist()
        assert captions == tuple(stills.captions[row][0] for row in rows)
    with pytest.raises(InputError, match="a film of 3 items needs as many photos and frame slots"):
        splice_items(stills, 3, NOISY.views, 2, seed=3)
