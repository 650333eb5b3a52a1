"""Encodes training images, for a calibration to compare queries with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.data.stills import CaptionedStills
from model.progress import Progress, Report, silent
from model.runtime.bundle import Bundle
from model.runtime.bundle.references import ReferenceImages

_IMAGES_AT_ONCE = 8
# They keep what matters of CLIP's embeddings of photos: more gave no better calibration.
_MOST_AXES = 64


def encode_reference_images(
    bundle: Bundle, sets: Sequence[CaptionedStills], count: int, seed: int = 0, report: Report = silent
) -> ReferenceImages:
    """Encode images of several sets, of each an equal share at most, as segments of one frame each.

    Args:
        bundle: encodes them.
        sets: photos or frames of videos that the bundle may have learned from.
        count: of all sets together; fewer where the sets have fewer.
        seed: decides which images.
        report: told of progress.

    Raises:
        InputError: an image cannot be read.
    """
    size = bundle.manifest.image.size
    rng = np.random.default_rng(seed)
    chosen = [
        (stills, image)
        for stills in sets
        for image in rng.permutation(len(stills.images))[: -(-count // len(sets))].tolist()
    ][:count]
    progress = Progress("reference images", len(chosen), report)
    parts: list[NDArray[np.float32]] = []
    for start in range(0, len(chosen), _IMAGES_AT_ONCE):
        batch = chosen[start : start + _IMAGES_AT_ONCE]
        frames = np.stack([stills.load(image, size) for stills, image in batch])
        embedding = bundle.encode_frames(frames).embedding
        parts.append(bundle.encode_segments(embedding[:, None], np.ones((len(batch), 1), np.float32)))
        progress.step(len(batch))
    return ReferenceImages.of(np.concatenate(parts), _MOST_AXES)
