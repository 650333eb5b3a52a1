"""Views of still images: the pixels of a plan's frames.

Shapes: F packed frames, s side in pixels.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from model.arrays import Array, Frames, Rows
from model.data.augmentation import Augmentation
from model.data.films import PLAIN, FilmPlan
from model.data.stills import CaptionedStills

#: The seed of views that are computed once, and then serve runs of every seed.
VIEW_SEED = 0
#: Part of the keys of stored views: raise it when `view_of` draws other ones.
VIEWS_VERSION = 2


class Views(Protocol):
    """Frames of plans, as pixels or as the outputs of a model's frozen stages."""

    def frames(self, plan: FilmPlan) -> Tensor:
        """A plan's packed frames. → uint8 [F, s, s, 3], or float [F, C, h', w']"""

    def teacher(self, plan: FilmPlan) -> Tensor | None:
        """A published classifier's shares for each frame; None without a classifier. → [F, classes]"""

    def plain(self, images: Rows) -> Tensor:
        """Images as they are. Shape [F] → as `frames`."""


def flips(view: int) -> bool:
    """Whether a view is mirrored, so that no text that speaks of left or right may go with it."""
    return view % 2 == 1


def view_of(stills: CaptionedStills, image: int, view: int, size: int, seed: int) -> Frames:
    """One view of an image: 0 is the image itself, the others are augmented. → uint8 [s, s, 3]

    A view changes all images of an item in the same way, as if another camera had taken it. The name of its
    first image decides how: whatever else is trained on, the view is the same.
    """
    pixels = stills.load(image, size)
    if not view:
        return pixels
    owner = int(stills.owners[image])
    first = image if owner < 0 else stills.items[owner][0]
    name = zlib.crc32(stills.images[first].name.encode("utf-8", "surrogateescape"))
    rng = np.random.default_rng((seed, view, name))
    return Augmentation.draw(rng, flip=flips(view)).apply(pixels)


def render(plan: FilmPlan, stills: CaptionedStills, size: int, seed: int) -> Iterator[Frames]:
    """The pixels of a plan's packed frames, one by one. Each uint8 [s, s, 3]."""

    def shot(image: int, view: int) -> Array:
        if image < 0:
            return np.full((size, size, 3), PLAIN[image], np.float32)
        return view_of(stills, image, view, size, seed).astype(np.float32)

    for (first, second), (view, other), share in zip(plan.images, plan.views, plan.share, strict=True):
        frame = shot(int(first), int(view))
        if share:
            frame = (1 - share) * frame + share * shot(int(second), int(other))
        yield np.rint(frame).astype(np.uint8)


@dataclass(frozen=True)
class PixelViews:
    """Views in pixels, made for every batch, for models without frozen stages."""

    stills: CaptionedStills
    size: int
    seed: int

    def frames(self, plan: FilmPlan) -> Tensor:
        """A plan's packed frames. → uint8 [F, s, s, 3]"""
        return torch.from_numpy(np.stack(list(render(plan, self.stills, self.size, self.seed))))

    def teacher(self, plan: FilmPlan) -> None:
        """None: there is no classifier."""

    def plain(self, images: Rows) -> Tensor:
        """Images as they are. Shape [F] → uint8 [F, s, s, 3]"""
        return torch.from_numpy(np.stack([self.stills.load(int(image), self.size) for image in images]))
