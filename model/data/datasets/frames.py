"""A split of a data set with its frames, a source for training and evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.arrays import Frames
from model.data.datasets.decoding import decode_frames, is_photo, part_shares
from model.data.datasets.frame_cache import FrameCache
from model.data.datasets.records import Split


class VideoFrames:
    """Captioned videos with their frames. Safe to use from several threads.

    Args:
        split: the videos.
        cache: keeps decoded frames; None: decode every time.
    """

    unit = "videos"

    def __init__(self, split: Split, cache: FrameCache | None = None) -> None:
        self.split, self.cache = split, cache
        self.captions: Sequence[Sequence[str]] = tuple(item.captions for item in split.items)
        asked = any(item.answers for item in split.items)
        self.answers: Sequence[Sequence[str]] = tuple(item.answers for item in split.items) if asked else ()

    @property
    def name(self) -> str:
        """The split's name, such as "msrvtt 1ka test"."""
        return self.split.name

    def __len__(self) -> int:
        return len(self.split)

    def frames(self, index: int, count: int, size: int, rng: np.random.Generator | None) -> Frames:
        """A random frame of each of `count` equal parts, or the middle ones without `rng`; equal ones once.

        Shape [n, size, size, 3], 1 ≤ n ≤ count.

        Raises:
            InputError: a file cannot be read, or the cache holds other frames.
        """
        item = self.split.items[index]
        if self.cache is None or is_photo(item.path):
            return decode_frames(item, part_shares(count, rng), size)[0]
        self.cache.check(count, size)
        return self.cache.frames(item, rng)
