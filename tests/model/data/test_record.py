"""What a run trained on: recorded in its checkpoints, and read back from them."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")


from model.config import Config
from model.data.record import (
    DATA_KEY,
    data_of,
    describe_data,
    resumed_data,
)
from model.settings import DataConfig, to_mapping
from model.training.checkpoints import read_state
from model.training.run import Run
from model.training.setup import start
from model.training.train import train
from tests.support.tiny_photos import make_photos, make_tokenizer, tiny_config

CAPTIONS = (("a red block", "red"), ("blue",))
HOLIDAY = 'photos "holiday", split train: 2 photos, 3 captions'


def photos(path: str) -> Config:
    return Config(data=DataConfig(path=path))


def state_of(record: dict[str, Any]) -> dict[str, Any]:
    return {DATA_KEY: record}


def test_photos_are_named_by_their_folder_and_counted() -> None:
    data = data_of(state_of(describe_data(photos("/home/me/holiday/"), CAPTIONS)))
    assert data.lines() == (HOLIDAY,)
    (dataset,) = data.datasets
    assert (dataset.items, dataset.captions) == (2, 3)
    assert "/home/me" not in repr(data)


def test_a_folder_is_named_from_where_the_run_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "holiday" / "images").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "holiday")
    for path in (".", "images/.."):
        assert data_of(state_of(describe_data(photos(path), CAPTIONS))).lines() == (HOLIDAY,)


def test_videos_are_named_by_annotations_and_folder() -> None:
    settings = DataConfig(kind="msrvtt", msrvtt="7k", annotations="/d/notes", videos="/d/clips")
    data = data_of(state_of(describe_data(Config(data=settings), CAPTIONS)))
    assert data.lines() == ('msrvtt 7k "notes" with "clips", split train: 2 videos, 3 captions',)
    settings = DataConfig(kind="image_text", annotations="/d/pairs.json", videos="/d/images")
    data = data_of(state_of(describe_data(Config(data=settings), CAPTIONS)))
    assert data.lines() == ('image_text "pairs.json" with "images", split train: 2 photos, 3 captions',)


def test_other_captions_have_another_digest() -> None:
    digests = set()
    for captions in (CAPTIONS, CAPTIONS[::-1], (("a red block",), ("red", "blue")), (("a red", "block"),)):
        (dataset,) = data_of(state_of(describe_data(photos("p"), captions))).datasets
        digests.add(dataset.captions_sha256)
    assert len(digests) == 4


def test_an_older_checkpoint_is_described_by_its_settings() -> None:
    config = photos("/home/me/holiday")
    old = {"config": to_mapping(config)}
    assert data_of(old).lines() == ('photos "holiday", split train: counts not recorded by the checkpoint',)
    started = dataclasses.replace(
        config, train=dataclasses.replace(config.train, start_from="runs/cc/best.pt")
    )
    assert data_of({"config": to_mapping(started)}).lines()[1:] == (
        "start_from cc/best.pt: not recorded by the checkpoint",
    )
    # Where "." was is not known any more.
    nameless = {"config": to_mapping(photos("."))}
    assert data_of(nameless).lines() == ("photos, split train: counts not recorded by the checkpoint",)


def test_a_record_of_another_version_is_refused() -> None:
    for record in ({}, {"datasets": [{"colour": "red"}], "start_from": None}):
        with pytest.raises(ValueError, match="record of its data is of another version"):
            data_of(state_of(record))


def test_the_start_is_carried_along() -> None:
    first = state_of(describe_data(photos("/d/cc"), CAPTIONS))
    base = photos("/d/holiday")
    second = dataclasses.replace(
        base, train=dataclasses.replace(base.train, start_from="/home/me/runs/first/best.pt")
    )
    third = dataclasses.replace(base, train=dataclasses.replace(base.train, start_from="/x/second/last.pt"))
    record = describe_data(second, CAPTIONS, first)
    assert data_of(state_of(record)).lines() == (
        HOLIDAY,
        'start_from first/best.pt: photos "cc", split train: 2 photos, 3 captions',
    )
    assert data_of(state_of(describe_data(third, CAPTIONS, state_of(record)))).lines()[2] == (
        'start_from second/last.pt: start_from first/best.pt: photos "cc", split train: 2 photos, 3 captions'
    )
    # Weights without settings or record, which nobody can say anything of.
    unknown = data_of(state_of(describe_data(second, CAPTIONS, {"model": {}})))
    assert unknown.lines()[1] == "start_from first/best.pt: not recorded by the checkpoint"


def test_a_run_that_goes_on_keeps_what_it_saw_before() -> None:
    before = describe_data(photos("/d/holiday"), CAPTIONS)
    moved = describe_data(photos("/e/copy"), CAPTIONS)
    assert resumed_data(state_of(before), moved) == before
    other = describe_data(photos("/d/other"), CAPTIONS[:1])
    assert data_of(state_of(resumed_data(state_of(before), other))).lines() == (
        HOLIDAY,
        'photos "other", split train: 1 photo, 2 captions',
    )
    # An older checkpoint knew the name alone.
    old = {"config": to_mapping(photos("/d/holiday"))}
    assert data_of(state_of(resumed_data(old, before))).lines() == (HOLIDAY,)
    assert len(data_of(state_of(resumed_data(old, other))).datasets) == 2


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return tiny_config(make_photos(tmp_path / "holiday"), tmp_path / "run", epochs=1)


def ready(config: Config, tmp_path: Path) -> Run:
    return start(config, lambda _: None, make_tokenizer(tmp_path / "tokenizer.json"))


def test_checkpoints_hold_the_record(config: Config, tmp_path: Path) -> None:
    train(ready(config, tmp_path), stop_at=1)
    recorded = 'photos "holiday", split train: 24 photos, 48 captions'
    for name in ("start.pt", "last.pt"):
        assert data_of(read_state(tmp_path / "run" / name)).lines() == (recorded,)

    # Resumed with other photos: both sets are in the weights.
    table = Path(shutil.copytree(tmp_path / "holiday", tmp_path / "other")) / "captions.csv"
    table.write_text(table.read_text(encoding="utf-8").replace("block", "brick"), encoding="utf-8")
    data = dataclasses.replace(config.data, path=str(tmp_path / "other"), cache=str(tmp_path / "cache"))
    train(ready(dataclasses.replace(config, data=data), tmp_path), stop_at=2)
    both = (recorded, recorded.replace("holiday", "other"))
    assert data_of(read_state(tmp_path / "run" / "last.pt")).lines() == both

    # Another run that starts from it.
    rates = dataclasses.replace(config.train, start_from=str(tmp_path / "run" / "last.pt"))
    fine = dataclasses.replace(config, train=rates, output=str(tmp_path / "fine"))
    fine = dataclasses.replace(fine, data=dataclasses.replace(config.data, limit=8))
    ready(fine, tmp_path)
    assert data_of(read_state(tmp_path / "fine" / "start.pt")).lines() == (
        'photos "holiday", split train: 8 photos, 16 captions',
        *(f"start_from run/last.pt: {line}" for line in both),
    )
