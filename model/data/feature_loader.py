"""The batches that training on features reads.

As in `model.data.loaders`, a batch depends only on (seed, epoch, batch number), and each of several processes
makes its share of it.

Shapes: B items.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np

from model import distributed
from model.arrays import Rows
from model.data.examples import FeatureExamples
from model.data.feature_sets import FeatureSource
from model.data.loaders import check_steps, epoch_order, share_of, steps_per_epoch
from model.runtime.errors import InputError
from model.settings import RunSettings

BatchT = TypeVar("BatchT")


def make_feature_loader(
    source: FeatureSource,
    config: RunSettings,
    collate: Callable[[FeatureExamples], BatchT],
    *,
    asks: bool,
) -> FeatureLoader[BatchT]:
    """The loader of a source, for this process among those that train together.

    Args:
        source: what is trained on.
        config: how batches are made.
        collate: makes a family's batch of examples; called in threads.
        asks: an epoch shows each query once, with its video; false: each item, without queries.

    Raises:
        InputError: there is no query, or an epoch has too few batches or items for one step of all processes.
    """
    loader = FeatureLoader(source, collate, config, asks, distributed.rank(), distributed.world())
    count = len(loader.pairs[0])
    if not count:
        raise InputError(
            f"{source.name} has no queries to learn from: set loss.task=pretraining, or name other "
            "data.annotations"
        )
    if count < loader.world:
        raise InputError(
            f"{source.name} has {count} {'queries' if asks else source.unit} for {loader.world} processes: "
            "start fewer"
        )
    check_steps(loader, config)
    return loader


@dataclass(frozen=True)
class FeatureLoader(Generic[BatchT]):
    """Videos or clips as features. Whole items: nothing is drawn at random but their order."""

    source: FeatureSource
    collate: Callable[[FeatureExamples], BatchT]
    config: RunSettings
    asks: bool
    rank: int = 0
    world: int = 1

    @cached_property
    def pairs(self) -> tuple[Rows, Rows]:
        """What an epoch shows: the item of each query, and the query's place; or all items, and −1."""
        if not self.asks:
            return np.arange(len(self.source)), np.full(len(self.source), -1)
        counts = [len(group) for group in self.source.queries]
        places = [np.arange(count) for count in counts]
        return np.repeat(np.arange(len(counts)), counts), np.concatenate([np.zeros(0, np.int64), *places])

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return steps_per_epoch(len(self.pairs[0]), self.config.train.batch_size)

    def make(self, epoch: int, number: int) -> BatchT:
        """This process's share of one batch; an item of several queries is read once."""
        size = self.config.train.batch_size
        owner, place = self.pairs
        chosen = epoch_order(self.config.train.seed, epoch, len(owner))[number * size : (number + 1) * size]
        chosen = chosen[share_of(len(chosen), self.rank, self.world)]
        rows = owner[chosen]
        items = {row: self.source.item(row) for row in dict.fromkeys(rows.tolist())}
        return self.collate(
            FeatureExamples(
                tuple(items[row] for row in rows.tolist()), rows, place[chosen] if self.asks else None
            )
        )
