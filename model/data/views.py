"""Views of still images: the pixels of a plan's frames, and random changes to them.

Shapes: F packed frames, s side in pixels.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter
from torch import Tensor

from model.arrays import Array, Frames, Rows
from model.data.films import PLAIN, FilmPlan
from model.data.stills import CaptionedStills


class Views(Protocol):
    """Frames of plans, as pixels or as the outputs of a model's frozen stages."""

    def frames(self, plan: FilmPlan) -> Tensor:
        """A plan's packed frames. → uint8 [F, s, s, 3], or float [F, C, h', w']"""

    def teacher(self, plan: FilmPlan) -> Tensor | None:
        """A published classifier's shares for each frame; None without a classifier. → [F, classes]"""

    def plain(self, images: Rows) -> Tensor:
        """Images as they are. Shape [F] → as `frames`."""


def augment(still: Frames, rng: np.random.Generator) -> Frames:
    """A random view that looks like a frame of a small video. Shape [s, s, 3] → the same.

    Crops change the aspect, as squashing wide video does; blur and JPEG imitate low resolution and strong
    compression, black bars imitate letterboxes.
    """
    size = still.shape[0]
    image = Image.fromarray(still)
    area, ratio = rng.uniform(0.5, 1.0), np.exp(rng.uniform(-0.3, 0.3))
    width = min(size, round(size * np.sqrt(area * ratio)))
    height = min(size, round(size * np.sqrt(area / ratio)))
    left, top = rng.integers(0, size - width + 1), rng.integers(0, size - height + 1)
    image = image.resize((size, size), Image.Resampling.BICUBIC, (left, top, left + width, top + height))
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        if rng.random() < 0.5:
            image = enhance(image).enhance(float(rng.uniform(0.65, 1.35)))
    if rng.random() < 0.25:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.5))))
    if rng.random() < 0.3:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(rng.integers(25, 75)))
        image = Image.open(buffer).convert("RGB")
    if rng.random() < 0.08:
        bar = int(rng.integers(size // 16, size // 6))
        inner = image.resize((size, size - 2 * bar), Image.Resampling.BICUBIC)
        image = Image.new("RGB", (size, size))
        image.paste(inner, (0, bar))
    return np.asarray(image)


def view_of(stills: CaptionedStills, image: int, view: int, size: int, seed: int) -> Frames:
    """One view of an image: 0 is the image itself, the others are augmented. → uint8 [s, s, 3]"""
    pixels = stills.load(image, size)
    return augment(pixels, np.random.default_rng((seed, view, image))) if view else pixels


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
