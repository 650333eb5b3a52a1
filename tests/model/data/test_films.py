"""Spliced films: what plans say, what caches make of them, and how processes share them."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")

import torch

from model.backbones import build_image
from model.config import Config
from model.data.films import PLAIN, FilmPlan, compose, part, unrelated
from model.data.loaders import StillLoader, ahead
from model.data.stills import CaptionedStills, read_stills
from model.data.view_cache import FrozenStages, ViewCache, build_cache
from model.families.lgdn.family import LGDNFamily
from model.families.lgdn.network import LGDNBatch
from model.runtime.preprocessing import TextTokenizer
from model.settings import DataConfig
from tests.support.tiny_photos import make_photos, make_tokenizer, tiny_config

FILMS = DataConfig(
    views=5, multi_view=0.4, max_views=3, film_share=0.6, film_frames=9, noise_pool=7, transitions=0.3
)
SLOTS = 12
ROWS, POOL = np.arange(16), np.arange(40, 47)


def plan(seed: int, data: DataConfig = FILMS) -> FilmPlan:
    return compose([(row,) for row in ROWS.tolist()], POOL, data, SLOTS, np.random.default_rng(seed))


def shown(made: FilmPlan, row: int) -> list[tuple[tuple[int, int], tuple[int, int], float]]:
    """What a video shows, in order: (photo, view), what is mixed into it, and the share of that."""
    frames = [int(made.slots[row, n]) for n in range(SLOTS) if made.mask[row, n] > 0]
    return [
        (
            (int(made.images[f, 0]), int(made.views[f, 0])),
            (int(made.images[f, 1]), int(made.views[f, 1])),
            float(made.share[f]),
        )
        for f in frames
    ]


@pytest.mark.parametrize("seed", range(8))
def test_a_film_is_its_own_part_in_a_stretch_of_unrelated_frames(seed: int) -> None:
    made = plan(seed)
    films = transitions = noise = 0
    for row in ROWS:
        video = shown(made, int(row))
        own = [i for i, (a, _, share) in enumerate(video) if a[0] == row and share == 0]
        assert own == list(range(own[0], own[-1] + 1)), "the own part is in one piece"
        assert 1 <= len(own) <= FILMS.max_views
        assert len({video[i][0] for i in own}) == len(own), "different views"
        rest = [(i, frame) for i, frame in enumerate(video) if i not in own]
        films += bool(rest)
        assert len(video) <= (FILMS.film_frames if rest else FILMS.max_views)
        for i, (a, b, share) in rest:
            noise += 1
            transitions += share > 0 or a[0] < 0
            if a[0] == row:  # a cross-fade between the own part and its neighbour, which it replaces
                assert i in (own[0] - 1, own[-1] + 1)
                assert 0.25 <= share <= 0.75
                assert b[0] in POOL
            else:
                assert a[0] in POOL or a[0] in PLAIN
                assert b[0] in POOL or b[0] in PLAIN
                assert (share > 0) == (a != b)
    assert 3 <= films <= 15
    assert 0.1 < transitions / noise < 0.6
    # Every packed frame is shown, none is there twice, and films share unrelated frames.
    used = {int(made.slots[b, n]) for b in range(16) for n in range(SLOTS) if made.mask[b, n] > 0}
    assert used == set(range(len(made.share)))
    keys = {
        (*p, *v, s) for p, v, s in zip(made.images.tolist(), made.views.tolist(), made.share, strict=True)
    }
    assert len(keys) == len(made.share) < made.mask.sum()
    assert made.first.all()


def test_a_plan_follows_from_its_seed_and_settings() -> None:
    for name in ("images", "views", "share", "slots", "mask"):
        assert np.array_equal(getattr(plan(3), name), getattr(plan(3), name))
    assert not np.array_equal(plan(3).mask, plan(4).mask)
    alone = plan(3, dataclasses.replace(FILMS, film_share=0.0, multi_view=0.0))
    assert alone.mask.sum() == len(alone.share) == len(ROWS)
    quiet = plan(3, dataclasses.replace(FILMS, transitions=0.0))
    assert quiet.plain.all()
    every = plan(3, dataclasses.replace(FILMS, film_share=1.0))
    assert (every.mask.sum(1) >= FILMS.film_frames // 2).all()


@pytest.mark.parametrize("world", [2, 4])
def test_parts_show_what_the_whole_shows(world: int) -> None:
    whole = plan(5)
    parts = [part(whole, rank, world) for rank in range(world)]
    size = len(ROWS) // world
    counted: list[tuple[float, ...]] = []
    for rank, mine in enumerate(parts):
        assert mine.slots.shape == (size, SLOTS)
        for row in range(size):
            assert shown(mine, row) == shown(whole, rank * size + row)
        assert len(mine.share) < len(whole.share)
        keys = [
            (*p, *v, s) for p, v, s in zip(mine.images.tolist(), mine.views.tolist(), mine.share, strict=True)
        ]
        counted += [key for key, first in zip(keys, mine.first, strict=True) if first]
    # Each frame counts for exactly one process.
    assert len(counted) == len(set(counted)) == len(whole.share)


def test_unrelated_photos_share_no_caption_with_the_batch() -> None:
    captions = [("a dog", "it runs"), ("a cat",), ("a cat", "a pet"), ("a bird",), ("a dog", "a hound")]
    for seed in range(10):
        found = unrelated(np.array([0]), ["a dog"], captions, 9, np.random.default_rng(seed))
        assert sorted(found.tolist()) == [1, 2, 3]
        assert len(unrelated(np.array([1]), ["a cat"], captions, 2, np.random.default_rng(seed))) == 2
    with pytest.raises(ValueError, match=r"nothing is left .* lower train\.batch_size"):
        unrelated(np.array([0]), ["a cat"], captions[:3], 2, np.random.default_rng(0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("films")


@pytest.fixture(scope="module")
def config(folder: Path) -> Config:
    base = tiny_config(make_photos(folder / "data"), folder / "run")
    data = dataclasses.replace(base.data, film_share=0.6, film_frames=4, noise_pool=5, transitions=0.3)
    return dataclasses.replace(base, data=data)


@pytest.fixture(scope="module")
def photos(config: Config) -> CaptionedStills:
    return read_stills(Path(config.data.path), "train")


@pytest.fixture(scope="module")
def cache(config: Config, folder: Path, photos: CaptionedStills) -> ViewCache:
    torch.manual_seed(0)
    image = build_image(config.model)
    teacher = torch.randn(7, image.width), torch.zeros(7)
    stages = FrozenStages(image, teacher, ("tiny", 2), teacher_classes=7)
    built = build_cache(folder / "cache", photos, stages, config, lambda _: None)
    # Plain frames are what the frozen stages make of plain pixels.
    for place, grey in enumerate(PLAIN.values()):
        pixels = torch.full((1, 48, 48, 3), grey, dtype=torch.uint8)
        expected = image.eval().prepare(pixels)[0].permute(1, 2, 0)
        torch.testing.assert_close(
            torch.from_numpy(built.blank[place]).float(), expected, atol=2e-3, rtol=2e-3
        )
    return built


def test_a_transition_mixes_maps(cache: ViewCache) -> None:
    data = dataclasses.replace(FILMS, views=3, film_share=1.0, transitions=0.6)
    made = compose([(row,) for row in range(8)], np.arange(10, 16), data, SLOTS, np.random.default_rng(0))
    frames, teacher = cache.frames(made), cache.teacher(made)
    assert teacher is not None
    mixed = 0
    for f in range(len(made.share)):
        a, b = (
            cache.maps[made.views[f, k]][made.images[f, k]]
            if made.images[f, k] >= 0
            else cache.blank[list(PLAIN).index(int(made.images[f, k]))]
            for k in (0, 1)
        )
        share = float(made.share[f])
        expected = torch.from_numpy((1 - share) * a.astype(np.float32) + share * b.astype(np.float32))
        torch.testing.assert_close(frames[f], expected.permute(2, 0, 1))
        simple = share == 0 and made.images[f, 0] >= 0
        mixed += not simple
        assert float(teacher[f].sum()) == pytest.approx(1.0 if simple else 0.0, abs=1e-3)
    assert mixed >= 5


def count_taught(batch: LGDNBatch) -> int:
    """The frames of which the teacher says something."""
    assert batch.teacher is not None
    return int((batch.teacher.sum(1) > 0).sum())


def test_processes_get_the_parts_of_one_batch(
    cache: ViewCache, photos: CaptionedStills, config: Config, folder: Path
) -> None:
    tokenizer = TextTokenizer.from_file(make_tokenizer(folder / "tokenizer.json"), 16)
    collate = partial(LGDNFamily().collate, tokenizer=tokenizer)
    whole = StillLoader(cache, photos, collate, config)
    halves = [StillLoader(cache, photos, collate, config, rank, 2) for rank in range(2)]
    said: set[int] = set()
    for number in range(whole.steps):
        batch = whole.make(0, number)
        said |= set(batch.video_ids.tolist())
        captions = {tuple(ids[ids > 0].tolist()) for ids in batch.input_ids}
        for row in range(len(batch.video_ids)):
            assert batch.frame_mask[row].sum() >= 1
        parts = [half.make(0, number) for half in halves]
        assert torch.equal(torch.cat([p.video_ids for p in parts]), batch.video_ids)
        assert torch.equal(torch.cat([p.frame_mask for p in parts]), batch.frame_mask)
        real = batch.frame_mask[:, :, None, None, None]
        frames = torch.cat([p.frames[p.slots] for p in parts])
        assert torch.equal(frames * real, batch.frames[batch.slots] * real)
        assert sum(count_taught(part) for part in parts) == count_taught(batch)
        assert len(captions) > 1
    assert said == set(range(24)), "an epoch shows each photo once"


def test_batches_made_ahead_are_the_same_in_the_same_order(
    cache: ViewCache, photos: CaptionedStills, config: Config, folder: Path
) -> None:
    tokenizer = TextTokenizer.from_file(make_tokenizer(folder / "tokenizer.json"), 16)
    loader = StillLoader(cache, photos, partial(LGDNFamily().collate, tokenizer=tokenizer), config)
    at_once = [loader.make(1, n) for n in range(3)]
    for workers in (0, 2):
        threaded = list(ahead(lambda n: loader.make(1, n), range(3), workers))
        for a, b in zip(at_once, threaded, strict=True):
            assert torch.equal(a.frames, b.frames)
            assert torch.equal(a.slots, b.slots)
            assert torch.equal(a.input_ids, b.input_ids)

    def fail(number: int) -> object:
        raise ValueError(f"video {number} is gone")

    with pytest.raises(ValueError, match="video 7 is gone"):
        next(ahead(fail, range(7, 20), 2))
