"""Photos and videos as one kind of source, and the pixels that photos are shown by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("yaml")

import torch

from model.config import Config
from model.data.films import PLAIN, compose
from model.data.sources import open_source
from model.data.stills import CaptionedStills
from model.data.views import PixelViews, Views
from model.settings import DataConfig
from tests.support.annotations import write_json
from tests.support.naive_views import naive_view
from tests.support.tiny_photos import make_photos, tiny_config


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("sources")
    return tiny_config(make_photos(folder / "data"), folder / "run")


def test_photos_are_videos_of_one_frame(config: Config) -> None:
    source = open_source(config, "val")
    assert (source.name, source.unit, len(source)) == ("val", "photos", 24)
    assert source.captions[0] == ("a high blue block left", "left is high blue")
    assert isinstance(source, CaptionedStills)
    for rng in (None, np.random.default_rng(0)):
        frames = source.frames(3, 16, 48, rng)
        assert frames.shape == (1, 48, 48, 3)
        np.testing.assert_array_equal(frames[0], source.load(3, 48))


def test_a_limit_is_for_training_alone(config: Config) -> None:
    limited = replace(config, data=replace(config.data, limit=5))
    assert [len(open_source(limited, split)) for split in ("train", "val")] == [5, 24]


def test_pairs_of_images_and_texts_are_the_same_kind(config: Config, tmp_path: Path) -> None:
    folder = Path(config.data.path) / "images"
    names = sorted(path.name for path in folder.glob("train_red*"))
    pairs = [{"image": name, "caption": f"photo {i}", "split": "test"} for i, name in enumerate(names)]
    write_json(tmp_path / "pairs.json", pairs)
    data = DataConfig(
        kind="image_text", annotations=str(tmp_path / "pairs.json"), videos=str(folder), max_views=1
    )
    source = open_source(replace(config, data=data), "test")
    assert (source.name, source.unit, len(source)) == ("image_text test", "videos", len(names))
    assert source.captions[1] == ("photo 1",)
    assert source.frames(1, 4, 48, None).shape == (1, 48, 48, 3)


def test_pixels_of_a_plan_are_its_views_mixed(config: Config) -> None:
    source = open_source(config, "train")
    assert isinstance(source, CaptionedStills)
    data = replace(config.data, film_share=1.0, transitions=0.6)
    plan = compose([(row,) for row in range(6)], np.arange(10, 15), data, 4, np.random.default_rng(1))
    views: Views = PixelViews(source, 48, seed=3)
    frames = views.frames(plan)
    assert (frames.dtype, frames.shape) == (torch.uint8, (len(plan.share), 48, 48, 3))
    assert views.teacher(plan) is None

    def shot(photo: int, view: int) -> np.ndarray:
        if photo < 0:
            return np.full((48, 48, 3), PLAIN[photo], float)
        return naive_view(source, photo, view, 48, 3).astype(float)

    mixed = 0
    for f, share in enumerate(plan.share.astype(float)):
        first, second = (shot(int(plan.images[f, k]), int(plan.views[f, k])) for k in (0, 1))
        assert np.abs(frames[f].numpy() - ((1 - share) * first + share * second)).max() <= 0.51
        mixed += share > 0
    assert mixed >= 3
    np.testing.assert_array_equal(views.plain(np.array([4, 2]))[1].numpy(), source.load(2, 48))
