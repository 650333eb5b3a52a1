"""Batches of features: what an epoch shows, and how processes share a batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from model.config import Config
from model.data.examples import FeatureExamples
from model.data.feature_loader import FeatureLoader, make_feature_loader
from model.data.feature_sets import FeatureSource, open_feature_source
from tests.support.feature_sets import write_howto100m, write_tvr
from tests.support.feel_runs import feel_run


@pytest.fixture(scope="module")
def tvr(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, FeatureSource]:
    """Four videos to train on, of three queries each."""
    folder = tmp_path_factory.mktemp("tvr")
    config = feel_run(write_tvr(folder), "tvr", folder / "run", loss={"task": "finetuning"}, batch_size=5)
    return config, open_feature_source(config.data, "train")


def plain(examples: FeatureExamples) -> FeatureExamples:
    return examples


def asked(examples: FeatureExamples) -> list[tuple[int, int]]:
    """The item and the query of each row."""
    assert examples.queries is not None
    return list(zip(examples.video_ids.tolist(), examples.queries.tolist(), strict=True))


def test_an_epoch_asks_each_query_once_of_its_own_video(tvr: tuple[Config, FeatureSource]) -> None:
    config, source = tvr
    loader = make_feature_loader(source, config, plain, asks=True)
    assert loader.steps == 2, "whole batches alone: 12 queries, 5 a batch"
    epochs = [[pair for n in range(2) for pair in asked(loader.make(epoch, n))] for epoch in range(2)]
    assert all(len(set(epoch)) == 10 for epoch in epochs)
    assert epochs[0] != epochs[1], "every epoch has an order of its own"
    batch = loader.make(0, 1)
    assert batch.queries is not None
    for item, video, query in zip(batch.items, batch.video_ids, batch.queries, strict=True):
        assert item.item_id == source.item_ids[video]
        assert item.queries[query] is source.queries[video][query]
    again = make_feature_loader(source, config, plain, asks=True).make(0, 1)
    assert asked(again) == asked(batch), "a batch depends on its number alone"
    assert all(np.array_equal(a.features, b.features) for a, b in zip(again.items, batch.items, strict=True))


def test_processes_share_the_batch_of_one(tvr: tuple[Config, FeatureSource]) -> None:
    config, source = tvr
    one = asked(FeatureLoader(source, plain, config, asks=True).make(1, 0))
    shares = [FeatureLoader(source, plain, config, True, rank, 2).make(1, 0) for rank in range(2)]
    assert [len(share.items) for share in shares] == [2, 2], "as many on each"
    assert [pair for share in shares for pair in asked(share)] == one[:4]


def test_pretraining_shows_each_clip_once_without_queries(tmp_path: Path) -> None:
    config = feel_run(write_howto100m(tmp_path), "clips", tmp_path / "run", batch_size=3)
    source = open_feature_source(config.data, "train")
    loader = make_feature_loader(source, config, plain, asks=False)
    batches = [loader.make(0, n) for n in range(loader.steps)]
    shown = [row for batch in batches for row in batch.video_ids.tolist()]
    assert len(set(shown)) == len(shown) == loader.steps * 3
    assert loader.steps == len(source) // 3
    assert all(batch.queries is None for batch in batches)
    assert all("Look, the" in item.text for item in batches[0].items)


def test_what_gives_no_batch_is_refused(tmp_path: Path, tvr: tuple[Config, FeatureSource]) -> None:
    clips = feel_run(write_howto100m(tmp_path), "clips", tmp_path / "run", accumulate=50)
    source = open_feature_source(clips.data, "train")
    with pytest.raises(ValueError, match=r"clips train has no queries to learn from: set loss.task=pre"):
        make_feature_loader(source, clips, plain, asks=True)
    with pytest.raises(ValueError, match=r"train.accumulate=50 is more than an epoch's"):
        make_feature_loader(source, clips, plain, asks=False)
