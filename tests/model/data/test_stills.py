"""Frames of videos with captions: read, joined with photos, and batched with them."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

pytest.importorskip("torch")

from model.config import Config
from model.data.films import compose
from model.data.loaders import StillLoader
from model.data.record import data_of
from model.data.sources import open_source
from model.data.stills import CaptionedStills, StillSet, read_stills
from model.families.lgdn.network import LGDNBatch
from model.training.setup import start
from model.training.train import train
from tests.support.tiny_photos import make_photos, make_tokenizer, tiny_config

FRAMES_PER_VIDEO = (1, 2, 3)


def write_table(path: Path, head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([head, *rows])


@pytest.fixture(scope="module")
def photos_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("stills") / "photos")


@pytest.fixture(scope="module")
def frames_folder(photos_folder: Path) -> Path:
    """Twelve videos to train on and six to validate on, whose frames are photos of the other set."""
    folder = photos_folder.parent / "frames"
    shutil.copytree(photos_folder / "images", folder / "images")
    frames: list[tuple[str, ...]] = []
    captions: list[tuple[str, ...]] = []
    for split, count in (("train", 12), ("val", 6)):
        images = sorted(path.name for path in (folder / "images").glob(f"{split}_*"))
        for video in range(count):
            name = f"{split}{video:02}"
            frames += [(image, name, split) for image in images[: FRAMES_PER_VIDEO[video % 3]]]
            images = images[FRAMES_PER_VIDEO[video % 3] :]
            captions += [(name, split, "a red block left"), (name, split, f"a block {video}")]
    write_table(folder / "frames.csv", ("image", "video", "split"), frames)
    write_table(folder / "captions.csv", ("video", "split", "caption"), captions)
    return folder


def test_a_video_is_an_item_of_all_its_frames(frames_folder: Path) -> None:
    stills = read_stills(frames_folder, "train")
    assert (stills.unit, len(stills), stills.sets) == ("videos", 12, (StillSet("frames", 12),))
    assert [len(item) for item in stills.items] == [*FRAMES_PER_VIDEO] * 4
    assert sorted(image for item in stills.items for image in item) == list(range(24))
    assert stills.captions[4] == ("a red block left", "a block 4")
    item = stills.items[2]
    expected = np.stack([stills.load(image, 32) for image in item])
    np.testing.assert_array_equal(stills.frames(2, 16, 32, None), expected)
    np.testing.assert_array_equal(stills.frames(2, 1, 32, None), expected[1:2])
    drawn = stills.frames(2, 2, 32, np.random.default_rng(0))
    assert drawn.shape == (2, 32, 32, 3)


def test_the_first_items_keep_their_own_images_alone(frames_folder: Path) -> None:
    whole = read_stills(frames_folder, "train")
    part = whole.first(3)
    assert (len(part), len(part.images), part.sets) == (3, 6, (StillSet("frames", 3),))
    for index in range(3):
        np.testing.assert_array_equal(part.frames(index, 9, 32, None), whole.frames(index, 9, 32, None))


@pytest.mark.parametrize(
    ("table", "rows", "message"),
    [
        ("frames.csv", [("a.jpg", "one", "train"), ("b.jpg", "two", "train")], "video two of .* no caption"),
        ("frames.csv", [], "has no rows of split 'train'"),
        ("captions.csv", [("one", "train", "x"), ("six", "train", "y")], "video six of .* has no frame"),
    ],
)
def test_what_is_missing_is_named(
    tmp_path: Path, table: str, rows: list[tuple[str, ...]], message: str
) -> None:
    heads = {"frames.csv": ("image", "video", "split"), "captions.csv": ("video", "split", "caption")}
    good = {"frames.csv": [("a.jpg", "one", "train")], "captions.csv": [("one", "train", "x")]}
    for name, head in heads.items():
        write_table(tmp_path / name, head, rows if name == table else cast(list[tuple[str, ...]], good[name]))
    with pytest.raises(ValueError, match=message):
        read_stills(tmp_path, "train")


def test_a_column_that_is_missing_is_named(tmp_path: Path) -> None:
    write_table(tmp_path / "frames.csv", ("image", "clip", "split"), [("a.jpg", "one", "train")])
    with pytest.raises(ValueError, match=r"no column 'video': its columns must be video, image, split"):
        read_stills(tmp_path, "train")


def mixed(photos_folder: Path, frames_folder: Path, output: Path, share: float) -> Config:
    config = tiny_config(photos_folder, output, epochs=2)
    return replace(config, data=replace(config.data, second=str(frames_folder), second_share=share))


def test_plans_show_different_images_of_an_item_before_other_views_of_them(frames_folder: Path) -> None:
    items = read_stills(frames_folder, "train").items
    settings = replace(tiny_config(Path(), Path()).data, views=4, max_views=4, film_share=0.0)
    for seed in range(5):
        for several in (0.0, 1.0):
            data = replace(settings, multi_view=several)
            plan = compose(items, np.zeros(0, np.int64), data, 8, np.random.default_rng(seed))
            for row, item in enumerate(items):
                shown = plan.slots[row][plan.mask[row] > 0]
                images = plan.images[shown, 0].tolist()
                assert images == sorted(images), "in the order of the video"
                assert set(images) <= set(item)
                assert len(set(images)) == min(len(item), len(images))
                assert len(set(zip(images, plan.views[shown, 0].tolist(), strict=True))) == len(images)
                if not several:
                    assert images == list(item)


def test_a_batch_has_the_share_of_each_set(photos_folder: Path, frames_folder: Path, tmp_path: Path) -> None:
    config = mixed(photos_folder, frames_folder, tmp_path / "run", 0.25)
    source = open_source(config, "train")
    assert isinstance(source, CaptionedStills)
    assert (source.unit, len(source)) == ("items", 24 + 12)
    run = start(config, lambda _: None, make_tokenizer(tmp_path / "tokenizer.json"))
    loader = cast(StillLoader[LGDNBatch], run.loader)
    assert (loader.shares, loader.steps) == ((6, 2), 4)
    shown: list[int] = []
    for epoch in range(3):
        for number in range(loader.steps):
            ids = loader.make(epoch, number).video_ids.tolist()
            assert sum(i >= 24 for i in ids) == 2
            assert len(set(ids)) == len(ids) == 8
            shown += ids
    counts = np.bincount(shown, minlength=36)
    assert (counts[:24] == 3).all(), "an epoch shows each photo once"
    assert (counts[24:] == 2).all(), "videos come in turn, over the epochs"


def test_sets_train_together_and_are_recorded(
    photos_folder: Path, frames_folder: Path, tmp_path: Path
) -> None:
    run = start(
        mixed(photos_folder, frames_folder, tmp_path / "run", 0.5),
        lambda _: None,
        make_tokenizer(tmp_path / "tokenizer.json"),
    )
    assert data_of({"data": run.data}).lines() == (
        'photos "photos", split train: 24 photos, 48 captions',
        'frames "frames", split train: 12 videos, 24 captions',
    )
    train(run)
    assert run.step == run.total == 2 * 6


def test_a_share_that_leaves_a_set_out_is_refused(
    photos_folder: Path, frames_folder: Path, tmp_path: Path
) -> None:
    config = mixed(photos_folder, frames_folder, tmp_path / "run", 0.01)
    with pytest.raises(ValueError, match=r"data.second_share=0.01 leaves no room"):
        start(config, lambda _: None, make_tokenizer(tmp_path / "tokenizer.json"))
