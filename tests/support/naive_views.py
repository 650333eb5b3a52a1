"""A view of a still image, by its definition."""

from __future__ import annotations

import zlib

import numpy as np

from model.arrays import Frames
from model.data.augmentation import Augmentation
from model.data.stills import CaptionedStills


def naive_view(stills: CaptionedStills, image: int, view: int, size: int, seed: int) -> Frames:
    """The image itself, or what the name of its item's first image, the view's number and the seed draw."""
    pixels = stills.load(image, size)
    if view == 0:
        return pixels
    (first,) = [item[0] for item in stills.items if image in item] or [image]
    rng = np.random.default_rng((seed, view, zlib.crc32(stills.images[first].name.encode())))
    return Augmentation.draw(rng, flip=view % 2 == 1).apply(pixels)
