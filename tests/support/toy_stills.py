"""Encoded stills whose vectors are random: each item has its own direction, and its captions lie near it."""

from __future__ import annotations

import numpy as np

from model.families.moment_head.encodings import EncodedStills
from tests.support.toy_bundle import unit


def toy_stills(
    photos: int = 30, videos: int = 10, dim: int = 8, views: int = 2, spread: float = 0.05, seed: int = 0
) -> EncodedStills:
    """Photos of one image and videos of two, two captions each; `spread` is how far views and texts lie."""
    rng = np.random.default_rng(seed)
    items: list[tuple[int, ...]] = []
    for number in range(photos + videos):
        first = items[-1][-1] + 1 if items else 0
        items.append((first,) if number < photos else (first, first + 1))
    centres = rng.normal(size=(len(items), dim))
    owners = np.repeat(np.arange(len(items)), [len(item) for item in items])

    def near(
        rows: np.ndarray[tuple[int], np.dtype[np.int64]], *shape: int
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        base = centres[rows].reshape(len(rows), *(1,) * len(shape), dim)
        return unit(base + spread * rng.normal(size=(len(rows), *shape, dim)))

    texts = np.repeat(np.arange(len(items)), 2)
    return EncodedStills(near(owners, views), tuple(items), near(texts), texts)
