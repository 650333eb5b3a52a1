"""Several feature files as one: the vectors of a video side by side, such as ResNet's and SlowFast's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.arrays import Array
from model.data.features.base import FeatureStore
from model.runtime.errors import InputError


class JoinedStore:
    """Stores side by side; see `FeatureStore`. Videos that a store lacks are left out.

    Extractors often differ by a vector or two at the end of a video: it is cut to the shorter length.

    Raises:
        InputError: no video is in all stores, or their vectors stand for different times.
    """

    def __init__(self, stores: Sequence[FeatureStore]) -> None:
        self._stores = tuple(stores)
        first, *others = stores
        self._names = tuple(name for name in first.names if all(name in store for store in others))
        if not self._names:
            raise InputError(
                "data.features: no video is in all of its files; set it to files of the same videos"
            )
        self._known = frozenset(self._names)
        found = {store.every_seconds for store in stores if store.every_seconds is not None}
        if len(found) > 1:
            times = " and ".join(f"{every:g}" for every in sorted(found))
            raise InputError(f"data.features: its files have a vector every {times} s: use one rate for all")
        self.every_seconds: float | None = next(iter(found), None)

    @property
    def names(self) -> Sequence[str]:
        """Videos that are in all stores."""
        return self._names

    @property
    def width(self) -> int:
        """The sum of the stores' widths."""
        return sum(store.width for store in self._stores)

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def length(self, name: str) -> int:
        """The shortest length of the stores."""
        return min(store.length(name) for store in self._stores)

    def duration_seconds(self, name: str) -> float | None:
        """What the first store that knows says."""
        found = (store.duration_seconds(name) for store in self._stores)
        return next((seconds for seconds in found if seconds is not None), None)

    def read(self, name: str) -> Array:
        """The vectors side by side, float32 [M, F]."""
        parts = [store.read(name) for store in self._stores]
        count = min(map(len, parts))
        return np.concatenate([part[:count] for part in parts], axis=1)
