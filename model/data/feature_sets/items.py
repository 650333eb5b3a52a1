"""What a model of features and timed text learns from: items, and sources of items.

Shapes: M vectors, F features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from model.arrays import Array
from model.data.alignment import Alignment, Label
from model.data.datasets.moments import Moment
from model.runtime.timed_text import TimedLine


@dataclass(frozen=True, eq=False)
class FeatureItem:
    """A video, or a clip of one, with its timed text and its queries.

    Attributes:
        item_id: the video's name; of a clip, `VIDEO.N` with its number N, as HERO names it.
        features: float32 [M, F], M at least 1.
        every_seconds: the seconds of one vector here; more than in the files where vectors are pooled.
        duration_seconds: the true length, where a file tells; otherwise that of the vectors.
        lines: what is said, timed from the item's start.
        alignment: which vectors show which line.
        queries: texts that describe the video or moments of it; none in pre-training.
        labels: of each query, the label of each of its spans; None for a span in what was cut off a long
            video.
        best: of each query, the place of the span that annotators agree on most; None without spans.
    """

    item_id: str
    features: Array
    every_seconds: float
    duration_seconds: float
    lines: tuple[TimedLine, ...]
    alignment: Alignment
    queries: tuple[Moment, ...] = ()
    labels: tuple[tuple[Label | None, ...], ...] = ()
    best: tuple[int | None, ...] = ()

    @property
    def text(self) -> str:
        """All that is said, in its order; empty without a line."""
        return " ".join(line.text for line in self.lines)

    def label(self, query: int) -> Label | None:
        """The label of one query to train on: that of the span that annotators agree on most, or None."""
        place = self.best[query]
        return None if place is None else self.labels[query][place]


class FeatureSource(Protocol):
    """One split of videos or clips with features. Safe to use from several threads."""

    @property
    def name(self) -> str:
        """The name of the split in results, such as "tvr val"."""

    @property
    def unit(self) -> str:
        """What the items are: "videos" or "clips"."""

    @property
    def width(self) -> int:
        """F.

        Raises:
            InputError: the first video's features cannot be read.
        """

    @property
    def item_ids(self) -> Sequence[str]:
        """The names of the items, each once."""

    @property
    def queries(self) -> Sequence[Sequence[Moment]]:
        """The queries of each item; none in pre-training."""

    @property
    def captions(self) -> Sequence[Sequence[str]]:
        """The texts of the queries of each item."""

    @property
    def lines(self) -> Sequence[Sequence[TimedLine]]:
        """The timed text of each item, before anything is cut off."""

    @property
    def numbers(self) -> Sequence[int]:
        """The number of each item in a submission: the data set's own, or else its place."""

    def __len__(self) -> int:
        """The number of items."""

    def item(self, index: int) -> FeatureItem:
        """One item.

        Raises:
            InputError: its features cannot be read.
        """


def pool_vectors(features: Array, most: int) -> tuple[Array, int]:
    """Average neighbours, so that at most `most` vectors are left. [M, F] → [M', F] and how many are joined.

    The last group may be smaller.
    """
    joined = math.ceil(len(features) / most)
    if joined == 1:
        return features, 1
    starts = np.arange(0, len(features), joined)
    counts = np.diff(np.append(starts, len(features)))[:, None]
    pooled: Array = (np.add.reduceat(features, starts, axis=0, dtype=np.float64) / counts).astype(np.float32)
    return pooled, joined
