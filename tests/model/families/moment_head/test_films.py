"""Films in the space of embeddings: what they show, and when."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from model.data.features.making import interval_middles
from model.families.moment_head.films import FilmBatch, Part, SpliceConfig, Splicer, frame_span
from model.runtime.errors import InputError
from tests.support.toy_stills import toy_stills

#: no fade, drift or noise: every frame is exactly an image, every query a caption
PLAIN = SpliceConfig(fades=0, drift=0, text_noise=0)


def batches(config: SpliceConfig, count: int = 8, groups: int = 4, seed: int = 0) -> list[FilmBatch]:
    splicer = Splicer(toy_stills(), config)
    return list(splicer.batches(count, groups, np.random.default_rng(seed)))


@pytest.mark.parametrize("every", [0.5, 1.0, 2.0])
def test_each_frame_shows_what_is_seen_at_its_time(every: float) -> None:
    stills = toy_stills()
    splicer = Splicer(stills, replace(PLAIN, every_seconds=every))
    film = splicer.film([3, 35, 7, 12], np.random.default_rng(1))
    assert film.parts[0].start_seconds == 0
    assert [part.item for part in film.parts] == [3, 35, 7, 12]
    assert len(film.frames) == np.ceil(film.duration_seconds / every)
    for frame, shown in enumerate(film.frames):
        time = min((frame + 0.5) * every, (frame * every + film.duration_seconds) / 2)
        (part,) = [p for p in film.parts if p.start_seconds <= time < p.end_seconds]
        own = stills.views[list(stills.items[part.item]), 0]
        assert np.abs(own - shown).sum(1).min() < 1e-5
    shown_images = {int(np.abs(stills.views[:, 0] - frame).sum(1).argmin()) for frame in film.frames}
    assert set(stills.items[35]) <= shown_images or every == 2.0


def test_spans_are_those_of_the_frames_that_show_the_item() -> None:
    stills = toy_stills(spread=0.01)
    splicer = Splicer(stills, PLAIN)
    for batch in splicer.batches(8, 4, np.random.default_rng(0)):
        for row in range(8):
            texts = np.linalg.norm(stills.texts - batch.text[row], axis=1)
            asked = int(stills.owners[texts.argmin()])
            own = stills.views[list(stills.items[asked]), 0]
            distance = np.linalg.norm(batch.frames[row][:, None] - own[None], axis=2).min(1)
            shows = np.flatnonzero((distance < 1e-3) & (batch.mask[row] > 0))
            if batch.start[row] < 0:
                assert batch.end[row] == -1
                assert not len(shows)
            else:
                assert shows.tolist() == list(range(batch.start[row], batch.end[row] + 1))


def test_frames_are_unit_vectors_and_padding_is_zero() -> None:
    for batch in batches(SpliceConfig(text_noise=0.3)):
        lengths = np.linalg.norm(batch.frames, axis=2)
        np.testing.assert_allclose(lengths, batch.mask, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(batch.text, axis=1), 1, atol=1e-5)
        assert (np.diff(batch.mask, axis=1) <= 0).all()
        assert batch.frames.dtype == batch.text.dtype == batch.mask.dtype == np.float32


def test_films_of_one_batch_have_similar_lengths() -> None:
    drawn = batches(SpliceConfig(), count=8, groups=4)
    lengths = [batch.mask.sum(1) for batch in drawn]
    ordered = sorted(lengths, key=lambda values: values.min())
    assert all(a.max() <= b.min() for a, b in pairwise(ordered))


def test_the_same_seed_gives_the_same_films() -> None:
    for first, second in zip(batches(SpliceConfig()), batches(SpliceConfig()), strict=True):
        np.testing.assert_array_equal(first.frames, second.frames)
        np.testing.assert_array_equal(first.start, second.start)
    other = batches(SpliceConfig(), seed=1)
    assert any(a.frames.shape != b.frames.shape for a, b in zip(batches(SpliceConfig()), other, strict=True))


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (1.0, 32)])
def test_share_of_queries_without_an_answer(share: float, expected: int) -> None:
    drawn = batches(SpliceConfig(unanswered=share))
    assert sum(int((batch.start < 0).sum()) for batch in drawn) == expected


def test_fades_mix_the_two_parts() -> None:
    stills = toy_stills()
    config = SpliceConfig(every_seconds=0.1, fades=1, fade_seconds=1, drift=0, shots=0)
    film = Splicer(stills, config).film([0, 1], np.random.default_rng(0))
    cut = Splicer(stills, replace(config, fades=0)).film([0, 1], np.random.default_rng(0))
    first, second = film.frames @ stills.views[0, 0], film.frames @ stills.views[1, 0]
    mixed = np.flatnonzero((first < 1 - 1e-4) & (second < 1 - 1e-4))
    border = film.parts[0].end_seconds
    assert len(mixed) >= 2
    assert np.abs((mixed + 0.5) * 0.1 - border).max() <= 0.5
    assert (np.diff(second[mixed[0] - 1 : mixed[-1] + 2]) > -1e-6).all()
    assert (np.abs(cut.frames @ stills.views[0, 0]) > 1 - 1e-4).sum() >= mixed[0]


def test_drift_moves_frames_within_a_shot_and_cuts_move_them_more() -> None:
    stills = toy_stills(dim=64, spread=0.03)
    film = Splicer(stills, SpliceConfig(fades=0, shots=0)).film([0, 1, 2], np.random.default_rng(0))
    beside = (film.frames[1:] * film.frames[:-1]).sum(1)
    borders = [int(np.ceil(part.start_seconds - 0.5)) - 1 for part in film.parts[1:]]
    within = np.delete(beside, borders)
    assert (within < 1 - 1e-6).any()
    assert beside[borders].max() < within.min()


def test_nearest_items() -> None:
    stills = toy_stills()
    splicer = Splicer(stills, PLAIN)
    means = np.stack([stills.views[list(item), 0].mean(0) for item in stills.items])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    order = [int(row) for row in np.argsort(-(means @ means[5])) if row != 5]
    assert splicer.neighbours(5).tolist() == order[:32]


@pytest.mark.parametrize(
    ("part", "duration", "every", "expected"),
    [
        (Part(0, 0.0, 6.2), 20, 1.0, (0, 5)),
        (Part(0, 6.2, 9.6), 20, 1.0, (6, 9)),
        (Part(0, 6.6, 8.4), 20, 1.0, (7, 7)),
        (Part(0, 6.6, 7.4), 20, 1.0, (7, 7)),
        (Part(0, 18.0, 20.4), 20.4, 1.0, (18, 20)),
        (Part(0, 20.3, 20.4), 20.4, 1.0, (20, 20)),
        (Part(0, 3.0, 6.0), 10, 2.0, (1, 2)),
    ],
)
def test_frames_of_a_part(part: Part, duration: float, every: float, expected: tuple[int, int]) -> None:
    assert frame_span(part, interval_middles(duration, every)) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fades": 1.5}, "fades is 1.5: it must be between 0 and 1"),
        ({"drift": -1.0}, "drift is -1.0: it must be 0 or more"),
        ({"every_seconds": 3.0}, "every_seconds 3.0, min_seconds 2.0, .* in this order"),
        ({"min_items": 9}, "min_items 9 and max_items 8"),
    ],
)
def test_wrong_settings_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SpliceConfig(**changes)


def test_too_few_items_are_refused() -> None:
    with pytest.raises(InputError, match="8 items are too few for films of up to 8"):
        Splicer(toy_stills(photos=8, videos=0), SpliceConfig())
