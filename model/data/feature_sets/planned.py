"""Items of features that are read when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from model.data.alignment import agreed_span, align, span_label
from model.data.datasets.moments import Moment
from model.data.feature_sets.items import FeatureItem, pool_vectors
from model.data.features import FeatureStore
from model.runtime.timed_text import TimedLine
from model.settings import DataConfig


@dataclass(frozen=True)
class PlannedItem:
    """An item before its features are read.

    `stored` is the name of its features. `count` None: all their vectors; if they are too many,
    they are cut or pooled.
    """

    item_id: str
    stored: str
    lines: tuple[TimedLine, ...]
    queries: tuple[Moment, ...] = ()
    first: int = 0
    count: int | None = None
    duration_seconds: float | None = None
    number: int | None = None


class PlannedFeatures:
    """Items whose features are read when they are asked for; see `FeatureSource`.

    Args:
        name: of the split.
        unit: "videos" or "clips".
        store: the features.
        planned: the items.
        data: `every_seconds`, `max_vectors` and `long_videos` of the settings.
    """

    def __init__(
        self, name: str, unit: str, store: FeatureStore, planned: Sequence[PlannedItem], data: DataConfig
    ) -> None:
        self.name, self.unit = name, unit
        self._store, self._planned, self._data = store, tuple(planned), data
        self.item_ids: Sequence[str] = tuple(item.item_id for item in planned)
        self.queries: Sequence[Sequence[Moment]] = tuple(item.queries for item in planned)
        self.captions: Sequence[Sequence[str]] = tuple(
            tuple(q.text for q in item.queries) for item in planned
        )
        self.lines: Sequence[Sequence[TimedLine]] = tuple(item.lines for item in planned)
        numbers = [item.number for item in planned]
        known = [number for number in numbers if number is not None]
        self.numbers: Sequence[int] = known if len(known) == len(numbers) else range(len(numbers))

    @property
    def width(self) -> int:
        """See `FeatureSource`."""
        return self._store.width

    def __len__(self) -> int:
        return len(self._planned)

    def item(self, index: int) -> FeatureItem:
        """See `FeatureSource`."""
        planned, data = self._planned[index], self._data
        features = self._store.read(planned.stored)
        every, lines = data.every_seconds, planned.lines
        if planned.count is not None:
            features = features[planned.first : planned.first + planned.count]
        duration = planned.duration_seconds or len(features) * every
        kept_seconds = float("inf")
        if len(features) > data.max_vectors and data.long_videos == "pool":
            features, joined = pool_vectors(features, data.max_vectors)
            every *= joined
        elif len(features) > data.max_vectors:
            features = features[: data.max_vectors]
            kept_seconds = len(features) * every
            lines = tuple(line for line in lines if line.start_seconds < kept_seconds)
        labels = tuple(
            tuple(
                None if span[0] >= kept_seconds else span_label(span, len(features), every)
                for span in query.spans
            )
            for query in planned.queries
        )
        best = tuple(agreed_span(query.spans) if query.spans else None for query in planned.queries)
        aligned = align(lines, len(features), every)
        return FeatureItem(
            planned.item_id, features, every, duration, lines, aligned, planned.queries, labels, best
        )
