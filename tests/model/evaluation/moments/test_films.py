"""Moments in films with known parts: the head, the simple ways by hand, and AUROC."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")

from model.evaluation.moments.films import (
    BaselineOptions,
    Films,
    FindsMoments,
    HeadOptions,
    auroc,
    films_table,
    join_films,
    measure_films,
)
from model.evaluation.moments.spliced import films_of_stills
from model.families.moment_head.films import SpliceConfig, Splicer
from model.runtime.bundle import MomentLogits
from model.runtime.errors import InputError
from tests.support.toy_bundle import segment_embedding, unit
from tests.support.toy_stills import toy_stills

Logits = NDArray[np.float32]


def two_films() -> Films:
    """A film of 10 s that shows A in 3 of them, and one of 6 s that shows B in 3; the rest of both is C."""
    a, b, c = np.eye(3, dtype=np.float32)
    shown = [np.stack([c] * 4 + [a] * 3 + [c] * 3), np.stack([b] * 3 + [c] * 3)]
    spans = np.array([[4.0, 7.0], [0.0, 3.0]])
    return join_films(shown, [10.0, 6.0], 1.0, np.stack([a, b]), np.array([0, 1]), spans)


def oracle(films: Films) -> FindsMoments:
    """A head that knows the answers: it finds the frames that are the query."""

    def find(query: Logits, frames: Logits, mask: NDArray[np.bool_]) -> MomentLogits:
        inside = (np.einsum("bd,btd->bt", query, frames) > 0.9) & mask
        start = inside & ~np.pad(inside, ((0, 0), (1, 0)))[:, :-1]
        end = inside & ~np.pad(inside, ((0, 0), (0, 1)))[:, 1:]
        as_logits = [np.where(flags, 20, -20).astype(np.float32) for flags in (start, end, ~inside)]
        return MomentLogits(*as_logits)

    return find


def test_a_head_that_knows_finds_all() -> None:
    films = two_films()
    figures = measure_films(films, oracle(films), segment_embedding)
    result = figures.ways["moment head"]
    assert result["SVMR"]["0.7-r1"] == result["VCMR"]["0.7-r1"] == 100
    assert figures.auroc == {"rejection": 1.0, "highest cosine": 1.0}
    assert figures.counts == {"queries": 2, "films": 2, "span_seconds": 3.0, "film_seconds": 8.0}


def test_simple_ways_by_hand() -> None:
    films = two_films()
    figures = measure_films(
        films,
        oracle(films),
        segment_embedding,
        baselines=BaselineOptions(window_seconds=3.0, segment_seconds=4.0),
    ).ways
    # Of the film's first similar frame, second 4 to 5, the window is 3 to 6: IoU 2/4; for B it is 0 to 3.
    window = figures["window of 3.0 s around the most similar frame"]["SVMR"]
    assert (window["0.5-r1"], window["0.7-r1"]) == (100, 50)
    # 4 to 8 s shows A for three quarters, 0 to 4 s shows B for three quarters.
    segments = figures["segments of 4 s"]["SVMR"]
    assert (segments["0.5-r1"], segments["0.7-r1"]) == (100, 100)
    threshold = figures["threshold on the similarity of frames"]
    assert threshold["SVMR"]["0.7-r1"] == threshold["VCMR"]["0.7-r1"] == 100


def test_the_mean_true_span_is_the_default_window() -> None:
    films = two_films()
    ways = measure_films(films, oracle(films), segment_embedding).ways
    assert "window of 3.0 s around the most similar frame" in ways


def test_moments_longer_than_allowed_are_not_found() -> None:
    films = two_films()
    figures = measure_films(films, oracle(films), segment_embedding, HeadOptions(max_seconds=1.0))
    assert figures.ways["moment head"]["SVMR"]["0.5-r1"] == 0


def test_the_rejection_orders_films() -> None:
    # Both films show what the query says, but the head rejects the first.
    a, c = np.eye(2, dtype=np.float32)
    shown = [np.stack([a, a, c]), np.stack([c, a, a])]
    films = join_films(shown, [3.0, 3.0], 1.0, a[None], np.array([1]), np.array([[1.0, 3.0]]))

    def find(query: Logits, frames: Logits, mask: NDArray[np.bool_]) -> MomentLogits:
        logits = oracle(films)(query, frames, mask)
        rejection = np.where(np.arange(len(frames))[:, None] == 0, 5, -5) * np.ones(mask.shape)
        return MomentLogits(logits.start, logits.end, rejection.astype(np.float32))

    with_it = measure_films(films, find, segment_embedding).ways["moment head"]
    without = measure_films(films, find, segment_embedding, HeadOptions(rejection_weight=0)).ways[
        "moment head"
    ]
    assert with_it["VCMR"]["0.7-r1"] == 100
    assert without["VCMR"]["0.7-r1"] == 0


def test_auroc_counts_pairs() -> None:
    random = np.random.default_rng(0)
    positive, negative = random.integers(0, 6, 20) / 1.0, random.integers(0, 5, 30) / 1.0
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert auroc(positive, negative) == pytest.approx(sum(pairs) / len(pairs))


def test_a_table_names_every_way() -> None:
    films = two_films()
    table = films_table(measure_films(films, oracle(films), segment_embedding))
    assert "2 queries, 2 films of 8.0 s, true spans of 3.0 s" in table
    assert "| moment head | 100.0 | 100.0 | 100.0 | 100.0 | 100.0 |" in table
    assert "AUROC: rejection 1.000, highest cosine 1.000" in table


def test_films_of_stills_ask_for_each_part() -> None:
    stills = toy_stills(spread=0.01)
    films = films_of_stills(Splicer(stills, SpliceConfig(drift=0, fades=0, text_noise=0)), 4, 3, seed=0)
    assert len(films.text) == 12
    assert films.film.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    for query, film, (start, end) in zip(films.text, films.film, films.spans, strict=True):
        frames = films.frames[film, : int(films.mask[film].sum())]
        middle = int((start + end) / 2)
        asked = stills.owners[np.linalg.norm(stills.texts - query, axis=1).argmin()]
        own = stills.views[list(stills.items[asked]), 0]
        assert np.linalg.norm(own - unit(frames[middle]), axis=1).min() < 1e-3
    with pytest.raises(InputError, match="14 films of 3 items need more than 40 items"):
        films_of_stills(Splicer(stills, SpliceConfig()), 14, 3, seed=0)


def test_one_film_is_no_corpus() -> None:
    frames = np.eye(2, dtype=np.float32)
    with pytest.raises(InputError, match="1 films and 1 queries: give at least 2 and 1"):
        join_films([frames], [2.0], 1.0, frames[:1], np.array([0]), np.array([[0.0, 1.0]]))
