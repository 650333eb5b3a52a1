"""Batches of questions: each text has its own answer, in one process and in several."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("yaml")

from PIL import Image

from model.config import Config
from model.data.datasets.frames import VideoFrames
from model.data.datasets.records import CaptionedVideo, Split
from model.data.examples import Examples
from model.data.loaders import Loader, StillLoader, VideoLoader
from model.data.stills import CaptionedStills, StillSet
from model.data.views import PixelViews
from tests.support.tiny_photos import tiny_config

ITEMS = 9


def of_item(item: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """One to three questions about an item, of several lengths, and their answers."""
    count = 1 + item % 3
    questions = tuple(f"what is {'very ' * number}{item}" for number in range(count))
    return questions, tuple(f"{item} {number}" for number in range(count))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{item}.png" for item in range(ITEMS)]
    for item, path in enumerate(paths):
        Image.fromarray(np.full((48, 48, 3), 20 * item, np.uint8)).save(path)
    return tuple(paths)


@pytest.fixture(scope="module")
def config() -> Config:
    settings = tiny_config(Path(), Path(), batch_size=4)
    return dataclasses.replace(
        settings, data=dataclasses.replace(settings.data, noise_pool=2, film_share=0.2)
    )


def stills(images: tuple[Path, ...], config: Config) -> Callable[[int, int], Loader[Examples]]:
    asked = [of_item(item) for item in range(ITEMS)]
    source = CaptionedStills(
        "train",
        images,
        tuple((item,) for item in range(ITEMS)),
        tuple(questions for questions, _ in asked),
        (StillSet("photos", ITEMS),),
        tuple(answers for _, answers in asked),
    )
    views = PixelViews(source, 48, 0)
    return lambda rank, world: StillLoader(views, source, lambda examples: examples, config, rank, world)


def videos(images: tuple[Path, ...], config: Config) -> Callable[[int, int], Loader[Examples]]:
    items = []
    for item, path in enumerate(images):
        questions, answers = of_item(item)
        items.append(CaptionedVideo(str(item), path, questions, answers=answers))
    source = VideoFrames(Split("train", tuple(items)))
    return lambda rank, world: VideoLoader(source, lambda examples: examples, config, rank, world)


def rows(batch: Examples) -> list[tuple[int, str, str]]:
    return list(zip(batch.video_ids.tolist(), batch.texts, batch.answers, strict=True))


@pytest.mark.parametrize("make", [stills, videos])
def test_each_question_has_its_own_answer(
    make: Callable[[tuple[Path, ...], Config], Callable[[int, int], Loader[Examples]]],
    images: tuple[Path, ...],
    config: Config,
) -> None:
    loader_of = make(images, config)
    whole, parts = loader_of(0, 1), [loader_of(rank, 2) for rank in range(2)]
    known = {(item, *pair) for item in range(ITEMS) for pair in zip(*of_item(item), strict=True)}
    seen = set()
    for epoch in range(3):
        for number in range(whole.steps):
            batch = whole.make(epoch, number)
            assert len(batch.answers) == 4
            assert set(rows(batch)) <= known
            assert [row for part in parts for row in rows(part.make(epoch, number))] == rows(batch)
            seen |= set(rows(batch))
    assert len(seen) > ITEMS


def test_captions_have_no_answers(images: tuple[Path, ...], config: Config) -> None:
    source = VideoFrames(Split("train", (CaptionedVideo("a", images[0], ("a caption",)),)))
    assert source.answers == ()
    assert VideoLoader(source, lambda examples: examples, config).make(0, 0).answers == ()
