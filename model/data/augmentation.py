"""Random changes to the frames of a clip, the same to each of them, as another small video would look.

Shapes: N frames, s side in pixels.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from model.arrays import Frames

_SIDES = re.compile(r"\b(?:left|right)(?:s|most|wards?|y|ies|-?hand(?:ed)?)?\b", re.IGNORECASE)
_ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def names_sides(text: str) -> bool:
    """Whether a text speaks of left or right, so that it would be wrong of the mirrored clip."""
    return _SIDES.search(text) is not None


@dataclass(frozen=True)
class Augmentation:
    """What is done to every frame of one clip.

    Crops change the aspect, as squashing wide video does; blur and JPEG imitate low resolution and strong
    compression, black bars imitate letterboxes.

    Attributes:
        crop: left, top, width and height of the part that is kept, as shares of the side.
        flip: mirror left and right.
        enhance: factors of brightness, contrast and colour.
        blur: radius in pixels; 0: none.
        jpeg_quality: 0: no compression.
        bars: height of the bars above and below, as a share of the side.
    """

    crop: tuple[float, float, float, float]
    flip: bool
    enhance: tuple[float, float, float]
    blur: float
    jpeg_quality: int
    bars: float

    @classmethod
    def draw(cls, rng: np.random.Generator, *, flip: bool) -> Augmentation:
        """A random augmentation; `flip` says whether it mirrors."""
        area, ratio = rng.uniform(0.5, 1.0), np.exp(rng.uniform(-0.3, 0.3))
        width, height = min(1.0, float(np.sqrt(area * ratio))), min(1.0, float(np.sqrt(area / ratio)))
        left, top = float(rng.uniform(0, 1 - width)), float(rng.uniform(0, 1 - height))
        factors = np.where(rng.random(3) < 0.5, rng.uniform(0.65, 1.35, 3), 1.0)
        return cls(
            crop=(left, top, width, height),
            flip=flip,
            enhance=(float(factors[0]), float(factors[1]), float(factors[2])),
            blur=float(rng.uniform(0.3, 1.5)) if rng.random() < 0.25 else 0.0,
            jpeg_quality=int(rng.integers(25, 75)) if rng.random() < 0.3 else 0,
            bars=float(rng.uniform(1 / 16, 1 / 6)) if rng.random() < 0.08 else 0.0,
        )

    def apply(self, frame: Frames) -> Frames:
        """The changed frame. Shape uint8 [s, s, 3] → the same."""
        size = frame.shape[0]
        left, top, width, height = (size * share for share in self.crop)
        image = Image.fromarray(frame).resize(
            (size, size), Image.Resampling.BICUBIC, (left, top, left + width, top + height)
        )
        if self.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        for enhancer, factor in zip(_ENHANCERS, self.enhance, strict=True):
            if factor != 1.0:
                image = enhancer(image).enhance(factor)
        if self.blur:
            image = image.filter(ImageFilter.GaussianBlur(self.blur))
        if self.jpeg_quality:
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=self.jpeg_quality)
            image = Image.open(buffer).convert("RGB")
        bar = round(self.bars * size)
        if bar:
            inner = image.resize((size, size - 2 * bar), Image.Resampling.BICUBIC)
            image = Image.new("RGB", (size, size))
            image.paste(inner, (0, bar))
        return np.asarray(image)
