"""Noisy films to measure on, spliced from captioned photos or frames of videos.

A noisy film shows one captioned item in a few views among unrelated images, cross-fades and blank frames;
others show several captioned items in turn. A distinct frame is made and encoded once.

Shapes: F distinct frames, G films, N frame slots, R items of a film.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from model.arrays import Frames, Rows
from model.data.films import FilmPlan, compose, concatenate
from model.data.stills import CaptionedStills
from model.data.views import render
from model.evaluation.corpus import (
    Corpus,
    TokenOptions,
    encode_frames,
    encode_whole,
    join_segments,
    slots_of,
)
from model.families.encoder import Encoder, ReadsWholeSegments
from model.progress import Progress, Report, silent
from model.runtime.errors import InputError
from model.settings import DataConfig

#: 1 to 4 views of the item among up to 16 frames, a fifth of the others transitions
NOISY = DataConfig(views=4, max_views=4, film_frames=16, transitions=0.2)


@dataclass(frozen=True)
class SplicedFilms:
    """Films of one split.

    Attributes:
        stills: what they are made of.
        plan: what they show.
        rows: the captioned items of each film, int64 [G, R].
        slots: the distinct frame in each slot, real frames first, int64 [G, N].
        counts: the number of real frames, int64 [G].
        seed: decides the views of images.
    """

    stills: CaptionedStills
    plan: FilmPlan
    rows: Rows
    slots: Rows
    counts: Rows
    seed: int

    @property
    def name(self) -> str:
        """The name of the split."""
        return self.stills.name

    @property
    def captions(self) -> tuple[tuple[str, ...], ...]:
        """The first caption of each of a film's items."""
        return tuple(tuple(self.stills.captions[row][0] for row in rows) for rows in self.rows)

    def frames(self, size: int) -> Iterator[Frames]:
        """The pixels of the distinct frames, one by one. Each uint8 [size, size, 3]."""
        return render(self.plan, self.stills, size, self.seed)


def splice_films(
    stills: CaptionedStills, count: int, noise: int, data: DataConfig, slots: int, seed: int
) -> SplicedFilms:
    """Plan `count` films, each of another item, with unrelated frames from `noise` further items.

    Args:
        stills: the items of one split.
        count: number of films.
        noise: number of items that serve only as unrelated frames.
        data: sizes and shares; a film has at most `film_frames` frames, and never more than `slots`.
        slots: N, the frame slots of the model that will read the films.
        seed: decides what the films show.

    Raises:
        InputError: there are too few items, or the model has a single frame slot.
    """
    if slots < 2:
        raise InputError(f"a film needs at least 2 frames, this model's segments have {slots}")
    if count + noise > len(stills):
        raise InputError(
            f"{count} films and {noise} unrelated {stills.unit} need more than {len(stills)} {stills.unit}"
        )
    rng = np.random.default_rng((seed, count))
    shuffled = rng.permutation(len(stills))
    rows, pool = shuffled[:count], shuffled[len(stills) - noise :]
    data = replace(data, film_share=1.0, film_frames=min(data.film_frames, slots))
    items = stills.items
    noise_images = np.array([items[row][len(items[row]) // 2] for row in pool], np.int64)
    plan = compose([items[row] for row in rows], noise_images, data, slots, rng)
    counts = plan.mask.sum(1).astype(np.int64)
    order = np.argsort(-plan.mask, axis=1, kind="stable")
    ordered = np.take_along_axis(plan.slots, order, axis=1)
    return SplicedFilms(stills, plan, rows[:, None], ordered, counts, seed)


def splice_items(stills: CaptionedStills, together: int, views: int, slots: int, seed: int) -> SplicedFilms:
    """Plan films of several items each, all of them captioned; every item is in one film.

    Args:
        stills: the items of one split; those that fill no film are left out.
        together: items of a film, each shown in as many frames.
        views: the views that images are shown in.
        slots: N, the frame slots of the model that will read the films.
        seed: decides what the films show.

    Raises:
        InputError: there are too few items, or the model has too few frame slots.
    """
    if together > min(slots, len(stills)):
        raise InputError(
            f"a film of {together} items needs as many {stills.unit} and frame slots; there are "
            f"{len(stills)} and {slots}"
        )
    rng = np.random.default_rng((seed, together))
    count = len(stills) // together
    rows = rng.permutation(len(stills))[: count * together].reshape(count, together)
    plan = concatenate([[stills.items[row] for row in group] for group in rows], views, slots, rng)
    return SplicedFilms(stills, plan, rows, plan.slots, plan.mask.sum(1).astype(np.int64), seed)


def encode_films(
    encoder: Encoder, films: SplicedFilms, tokens: TokenOptions | None = None, report: Report = silent
) -> Corpus:
    """Encode every film as a video of one segment; `tokens`: with frame tokens."""
    progress = Progress("distinct frames", len(films.plan.images), report)

    def read() -> Iterator[Frames]:
        for frame in films.frames(encoder.profile.resizing.size):
            yield frame[None]
            progress.step()

    owner = np.arange(len(films.rows), dtype=np.int64)
    if isinstance(encoder, ReadsWholeSegments):
        distinct = np.concatenate(list(read()))
        shown = (distinct[row[:n]] for row, n in zip(films.slots, films.counts, strict=True))
        embedding, salience = encode_whole(encoder, shown)
        slots, counts = slots_of(films.counts.tolist())
        return Corpus(embedding, owner, slots, counts, salience, None)
    encoded = encode_frames(encoder, read(), tokens)
    return Corpus(
        embedding=join_segments(encoder, encoded.embedding, films.slots, films.counts),
        owner=owner,
        slots=films.slots,
        counts=films.counts,
        salience=encoded.salience,
        tokens=encoded.tokens,
    )
