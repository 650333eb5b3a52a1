"""Noisy video to measure on: films spliced from captioned photos, in pixels.

Each film shows one captioned photo in a few views among unrelated photos, cross-fades and blanks; a distinct
frame is made, and encoded, once.

Shapes: F distinct frames, G films, N frame slots.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model.data.films import Plan, compose
from model.data.photos import CaptionedPhotos
from model.data.views import render
from model.evaluation.corpus import Corpus, Frames, TokenOptions, encode_frames, join_segments
from model.families.encoder import Encoder
from model.progress import Progress, Report, silent
from model.runtime.errors import InputError
from model.settings import DataConfig

#: a part of 1 to 4 views among up to 16 frames, a fifth of the others transitions
NOISY = DataConfig(views=4, max_views=4, film_frames=16, transitions=0.2)


@dataclass(frozen=True)
class SplicedFilms:
    """What some films show. `slots` int64 [G, N] with the real frames first, `counts` int64 [G]."""

    photos: CaptionedPhotos
    plan: Plan
    rows: NDArray[np.int64]
    slots: NDArray[np.int64]
    counts: NDArray[np.int64]
    seed: int

    @property
    def name(self) -> str:
        """The split of the photos."""
        return self.photos.name

    @property
    def captions(self) -> tuple[tuple[str], ...]:
        """The first caption of each film's photo."""
        return tuple((self.photos.captions[row][0],) for row in self.rows)

    def frames(self, size: int) -> Iterator[NDArray[np.uint8]]:
        """The distinct frames' pixels, one by one. Each [size, size, 3]."""
        return render(self.plan, self.photos, size, self.seed)


def splice(
    photos: CaptionedPhotos, count: int, noise: int, data: DataConfig, slots: int, seed: int
) -> SplicedFilms:
    """Plan `count` films, each of another photo, with unrelated frames from `noise` further photos.

    Raises:
        InputError: when there are fewer photos.
    """
    if count + noise > len(photos):
        raise InputError(f"{count} films and {noise} unrelated photos need more than {len(photos)} photos")
    rng = np.random.default_rng((seed, count))
    chosen = rng.permutation(len(photos))
    rows, pool = chosen[:count], chosen[len(photos) - noise :]
    plan = compose(rows, pool, replace(data, film_share=1.0), slots, rng)
    counts = plan.mask.sum(1).astype(np.int64)
    order = np.argsort(-plan.mask, axis=1, kind="stable")
    return SplicedFilms(photos, plan, rows, np.take_along_axis(plan.slots, order, axis=1), counts, seed)


def encode_films(
    encoder: Encoder, films: SplicedFilms, tokens: TokenOptions | None = None, report: Report = silent
) -> Corpus:
    """Every film as a video of one segment."""
    progress = Progress("distinct frames", len(films.plan.photos), report)

    def read() -> Iterator[Frames]:
        for frame in films.frames(encoder.profile.image_size):
            yield frame[None]
            progress.step()

    encoded = encode_frames(encoder, read(), tokens)
    return Corpus(
        embedding=join_segments(encoder, encoded.embedding, films.slots, films.counts),
        owner=np.arange(len(films.rows), dtype=np.int64),
        slots=films.slots,
        counts=films.counts,
        salience=encoded.salience,
        tokens=encoded.tokens,
    )
