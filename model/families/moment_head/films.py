"""Films spliced in the space of embeddings, whose true spans are known.

A film shows items (photos or videos) one after the other. Each item fills a part of random length with one or
more shots; parts meet in cuts or in short cross-fades. Within a shot, embeddings drift between the views of
an image and along the differences between views of other images, as those of a real camera do. A query is a
caption of one item of the film, or of an item that the film does not show.

Frame t is what is seen at (t + 0.5) · every seconds; the last one, in the middle of what is
left. Shapes: B films, T frames, D joint space, I images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.arrays import Array, Rows, unit_rows
from model.data.features.making import interval_middles
from model.families.moment_head.encodings import EncodedStills
from model.runtime.errors import InputError

_NEIGHBOURS = 32


@dataclass(frozen=True)
class SpliceConfig:
    """What spliced films look like.

    Attributes:
        every_seconds: seconds from one frame to the next.
        min_items: items of a film, at least.
        max_items: items of a film, at most.
        median_seconds: median length of an item.
        spread: standard deviation of the length's logarithm.
        min_seconds: shortest item.
        max_seconds: longest item.
        shots: share of the items that are several shots.
        fades: share of the joints that are cross-fades.
        fade_seconds: longest cross-fade.
        drift: largest part of a view's embedding that differs from the image's, and of foreign differences.
        unanswered: share of the queries that no part of the film answers.
        near: share of the films with distractors like the item that the query is about.
        text_noise: length of the random vector that is added to a query's embedding.

    Raises:
        InputError: a value is out of its range.
    """

    every_seconds: float = 1.0
    min_items: int = 1
    max_items: int = 8
    median_seconds: float = 6.0
    spread: float = 0.8
    min_seconds: float = 2.0
    max_seconds: float = 50.0
    shots: float = 0.5
    fades: float = 0.5
    fade_seconds: float = 1.0
    drift: float = 1.5
    unanswered: float = 0.3
    near: float = 0.5
    text_noise: float = 0.3

    def __post_init__(self) -> None:
        for name in ("shots", "fades", "unanswered", "near"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}: it must be between 0 and 1", name)
        for name in ("drift", "text_noise", "fade_seconds", "spread"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} is {getattr(self, name)}: it must be 0 or more", name)
        if not 0 < self.every_seconds <= self.min_seconds <= self.median_seconds <= self.max_seconds:
            raise InputError(
                f"every_seconds {self.every_seconds}, min_seconds {self.min_seconds}, median_seconds "
                f"{self.median_seconds} and max_seconds {self.max_seconds} must be above 0 and in this order"
            )
        if not 1 <= self.min_items <= self.max_items:
            raise InputError(
                f"min_items {self.min_items} and max_items {self.max_items} must be 1 or more, in this order"
            )


@dataclass(frozen=True)
class Part:
    """An item's place in a film, in seconds."""

    item: int
    start_seconds: float
    end_seconds: float


@dataclass(frozen=True)
class EmbeddedFilm:
    """A film as the embeddings of its frames, float32 [T, D], and its parts in order."""

    frames: Array
    parts: tuple[Part, ...]

    @property
    def duration_seconds(self) -> float:
        """The end of the last part."""
        return self.parts[-1].end_seconds


@dataclass(frozen=True)
class FilmBatch:
    """Queries, each with a film.

    Attributes:
        text: embeddings of the queries, float32 [B, D].
        frames: embeddings of the frames, 0 for padding, float32 [B, T, D].
        mask: 1 for real frames, float32 [B, T].
        start: the first frame of the answer, int64 [B]; −1 where there is none.
        end: its last frame, int64 [B]; −1 where there is none.
    """

    text: Array
    frames: Array
    mask: Array
    start: Rows
    end: Rows


class Splicer:
    """Makes films of encoded items."""

    def __init__(self, stills: EncodedStills, config: SpliceConfig) -> None:
        """Prepare the drawing.

        Raises:
            InputError: there are too few items.
        """
        if len(stills) <= config.max_items:
            raise InputError(
                f"{len(stills)} items are too few for films of up to {config.max_items}: add data, or lower "
                "max_items"
            )
        self.stills, self.config = stills, config
        means = np.stack([stills.views[list(item), 0].mean(0) for item in stills.items])
        self._means = unit_rows(means)
        first = np.searchsorted(stills.owners, np.arange(len(stills)))
        last = np.searchsorted(stills.owners, np.arange(len(stills)), side="right")
        self._captions = np.stack([first, last], axis=1)
        self._neighbours: dict[int, Rows] = {}

    def batches(self, count: int, groups: int, rng: np.random.Generator) -> Iterator[FilmBatch]:
        """Draw `groups` batches of `count` queries. Films of similar length share a batch, to pad little."""
        drawn = sorted((self._pair(rng) for _ in range(count * groups)), key=lambda pair: len(pair[0].frames))
        for group in rng.permutation(groups).tolist():
            yield self._batch(drawn[group * count : (group + 1) * count])

    def _batch(self, drawn: Sequence[tuple[EmbeddedFilm, Array, Part | None]]) -> FilmBatch:
        count = len(drawn)
        longest = max(len(film.frames) for film, _, _ in drawn)
        frames = np.zeros((count, longest, self._means.shape[1]), np.float32)
        mask = np.zeros((count, longest), np.float32)
        spans = np.full((count, 2), -1, np.int64)
        for row, (film, _, part) in enumerate(drawn):
            frames[row, : len(film.frames)], mask[row, : len(film.frames)] = film.frames, 1
            if part is not None:
                times = interval_middles(film.duration_seconds, self.config.every_seconds)
                spans[row] = frame_span(part, times)
        text = np.stack([text for _, text, _ in drawn])
        return FilmBatch(text, frames, mask, spans[:, 0], spans[:, 1])

    def query(self, item: int, rng: np.random.Generator) -> Array:
        """The embedding of one of an item's captions, with the noise of training. → float32 [D]"""
        text: Array = self.stills.texts[int(rng.integers(*self._captions[item]))]
        if not self.config.text_noise:
            return text
        noise = rng.standard_normal(len(text)).astype(np.float32) / np.float32(np.sqrt(len(text)))
        return unit_rows(text + np.float32(self.config.text_noise) * noise)

    def film(self, items: Sequence[int], rng: np.random.Generator) -> EmbeddedFilm:
        """A film that shows some items in this order."""
        config = self.config
        lengths = np.exp(rng.normal(np.log(config.median_seconds), config.spread, len(items)))
        lengths = np.clip(lengths, config.min_seconds, config.max_seconds)
        borders = np.concatenate([[0.0], np.cumsum(lengths)])
        times = interval_middles(float(borders[-1]), config.every_seconds)
        places = np.clip(np.searchsorted(borders, times, side="right") - 1, 0, len(items) - 1)
        frames = np.empty((len(times), self._means.shape[1]), np.float32)
        before = frames[0]
        for place, item in enumerate(items):
            own = places == place
            # One more frame on either side, for cross-fades.
            shown = self._part(item, int(own.sum()) + 2, rng)
            frames[own] = shown[1:-1]
            if place and rng.random() < config.fades:
                fade = rng.uniform(0, min(config.fade_seconds, config.min_seconds / 2))
                for frame in np.flatnonzero(np.abs(times - borders[place]) < fade / 2):
                    share = np.float32((times[frame] - borders[place]) / fade + 0.5)
                    other = shown[0] if times[frame] < borders[place] else before
                    weight = share if times[frame] < borders[place] else 1 - share
                    frames[frame] = (1 - weight) * frames[frame] + weight * other
            before = shown[-1]
        parts = tuple(
            Part(int(item), float(borders[place]), float(borders[place + 1]))
            for place, item in enumerate(items)
        )
        return EmbeddedFilm(unit_rows(frames), parts)

    def neighbours(self, item: int) -> Rows:
        """The items whose images are nearest to an item's, nearest first. → int64 [K]"""
        if item not in self._neighbours:
            similarity = self._means @ self._means[item]
            similarity[item] = -2
            count = min(_NEIGHBOURS, len(similarity) - 1)
            nearest = np.argpartition(-similarity, count - 1)[:count]
            self._neighbours[item] = nearest[np.argsort(-similarity[nearest])]
        return self._neighbours[item]

    def _pair(self, rng: np.random.Generator) -> tuple[EmbeddedFilm, Array, Part | None]:
        """A film, a query, and the part that answers it."""
        config = self.config
        count = int(rng.integers(config.min_items, config.max_items + 1))
        asked = int(rng.integers(len(self.stills)))
        answered = rng.random() >= config.unanswered
        others = self._others(asked, count - 1 if answered else count, rng)
        items = rng.permutation([*others, asked] if answered else others)
        film = self.film(items.tolist(), rng)
        part = next((part for part in film.parts if part.item == asked), None)
        return film, self.query(asked, rng), part

    def _others(self, asked: int, count: int, rng: np.random.Generator) -> list[int]:
        """Distinct items besides the one that is asked for, some like it in a share of the films."""
        chosen: list[int] = []
        if rng.random() < self.config.near and count:
            near = self.neighbours(asked)
            chosen = rng.permutation(near)[: int(rng.integers(1, min(count, 3) + 1))].tolist()
        taken = {asked, *chosen}
        while len(chosen) < count:
            item = int(rng.integers(len(self.stills)))
            if item not in taken:
                chosen.append(item)
                taken.add(item)
        return chosen

    def _part(self, item: int, count: int, rng: np.random.Generator) -> Array:
        """`count` frames of an item: one shot of one of its images, or several shots. → [count, D]"""
        images = self.stills.items[item]
        shots = 1
        cuts = np.zeros(0, np.int64)
        if count > 3 and rng.random() < max(self.config.shots, 0.8 if len(images) > 1 else 0):
            shots = min(int(rng.integers(2, 2 + max(2, count // 4))), count // 2)
            cuts = np.sort(rng.choice(np.arange(1, count), shots - 1, replace=False))
        lengths = np.diff([0, *cuts, count]).tolist()
        return np.concatenate(
            [self._shot(images[int(rng.integers(len(images)))], length, rng) for length in lengths]
        )

    def _shot(self, image: int, count: int, rng: np.random.Generator) -> Array:
        """`count` frames of one shot of an image. → [count, D]"""
        views = self.stills.views
        own, base = views[image], views[image, 0]
        foreign = views[rng.integers(len(views), size=2)]
        # Directions in which a moving camera changes an embedding: to other views, and as others' views do.
        directions = np.concatenate([own[1:] - base, foreign[:, 1:].reshape(-1, len(base)) - foreign[0, 0]])
        if views.shape[1] > 1:
            directions[len(own) - 1 :] = (foreign[:, 1:] - foreign[:, :1]).reshape(-1, len(base))
        amplitude = self.config.drift * rng.uniform(0, 1, (2, 1, 1)) ** np.array([[[1.0]], [[2.0]]])
        # A constant part for the shot, and a walk from one place to another with a little shaking.
        begin, finish, constant = rng.uniform(-0.5, 1, (3, len(directions)))
        steps = np.linspace(0, 1, count)[:, None]
        walk = begin + steps * (finish - begin) + rng.normal(0, 0.1, (count, len(directions)))
        weights = amplitude[0] * constant + amplitude[1] * walk
        weights *= np.where(np.arange(len(directions)) < len(own) - 1, 1.0, 0.5)
        return unit_rows(base + weights.astype(np.float32) @ directions)


def frame_span(part: Part, times: NDArray[np.float64]) -> tuple[int, int]:
    """First and last frame whose times lie within a part; the nearest one if there is none. `times`: [T]"""
    first, after = np.searchsorted(times, [part.start_seconds, part.end_seconds]).tolist()
    first = min(first, len(times) - 1)
    return first, max(first, after - 1)
