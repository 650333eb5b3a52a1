"""The batches that training reads.

A batch depends only on (seed, epoch, batch number): a resumed run sees what an uninterrupted one would see,
and each of several processes makes its share of the batch that one process would make.
Shapes: B videos, F packed frames, N frame slots.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch

from model import distributed, processes
from model.arrays import Frames, Rows
from model.data.augmentation import Augmentation, names_sides
from model.data.examples import Examples
from model.data.films import FilmPlan, compose, part, unrelated
from model.data.full_stops import with_other_stop
from model.data.openings import with_opening
from model.data.sources import Source
from model.data.stills import CaptionedStills
from model.data.view_cache import FrozenStages, build_cache
from model.data.views import VIEW_SEED, PixelViews, Views, flips
from model.progress import Report
from model.runtime.errors import InputError
from model.settings import RunSettings

BatchT = TypeVar("BatchT")
BatchT_co = TypeVar("BatchT_co", covariant=True)


class Loader(Protocol[BatchT_co]):
    """Makes any batch of an epoch by its number."""

    @property
    def steps(self) -> int:
        """Batches in an epoch."""

    def make(self, epoch: int, number: int) -> BatchT_co:
        """This process's share of one batch."""


def make_loader(
    source: Source,
    config: RunSettings,
    collate: Callable[[Examples], BatchT],
    stages: FrozenStages | None,
    cache_folder: Path,
    report: Report,
) -> Loader[BatchT]:
    """The loader of a source, for this process among those that train together.

    Args:
        source: what is trained on.
        config: how batches are made.
        collate: makes a family's batch of examples; called in threads.
        stages: the stages that never train, whose outputs for images are cached. None: images stay pixels.
        cache_folder: holds those outputs, unless `data.cache` names another folder.
        report: told how much of the cache is computed.

    Raises:
        InputError: an epoch has fewer batches than one optimiser step takes.
    """
    rank, world = distributed.rank(), distributed.world()
    loader: Loader[BatchT]
    if isinstance(source, CaptionedStills):
        views = _views(source, config, stages, cache_folder, report)
        loader = StillLoader(views, source, collate, config, rank, world)
    else:
        loader = VideoLoader(source, collate, config, rank, world)
    check_steps(loader, config)
    return loader


def check_steps(loader: Loader[BatchT], config: RunSettings) -> None:
    """Refuse an epoch that has fewer batches than one optimiser step takes.

    Raises:
        InputError: it has.
    """
    if loader.steps < config.train.accumulate:
        raise InputError(
            f"train.accumulate={config.train.accumulate} is more than an epoch's {loader.steps} batches: "
            "lower it, or train.batch_size"
        )


def _views(
    stills: CaptionedStills,
    config: RunSettings,
    stages: FrozenStages | None,
    cache_folder: Path,
    report: Report,
) -> Views:
    if stages is None:
        # A teacher has seen certain views.
        seed = config.train.seed if stills.taught is None else VIEW_SEED
        return PixelViews(stills, config.model.image_size, seed)
    folder = Path(config.data.cache) if config.data.cache else cache_folder
    with processes.first_before_others():
        return build_cache(folder, stills, stages, config, report)


def steps_per_epoch(items: int, batch_size: int) -> int:
    """Whole batches only, since items of a smaller one would weigh more. A tiny set gives one batch."""
    return max(1, items // batch_size)


@lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, items: int) -> Rows:
    """The order of an epoch. The array is shared: do not write to it."""
    order: Rows = np.random.default_rng((seed, epoch)).permutation(items)
    return order


def _by_length(texts: Sequence[str]) -> list[int]:
    """Rows sorted by the texts' lengths: the text encoder pads each part to its longest text."""
    return sorted(range(len(texts)), key=lambda i: len(texts[i]))


def _shares(sizes: Sequence[int], second_share: float, batch_size: int) -> tuple[int, ...]:
    """How many items of each set a batch has.

    Raises:
        InputError: a set would have none.
    """
    if len(sizes) == 1:
        return (batch_size,)
    second = round(second_share * batch_size)
    if not 0 < second < batch_size:
        raise InputError(
            f"data.second_share={second_share} leaves no room for both sets in a batch of {batch_size}: "
            "raise train.batch_size, or leave data.second out"
        )
    return batch_size - second, second


def _endless(seed: int, items: int, first: int, count: int) -> Rows:
    """`count` rows of a set from place `first` on, in a new order each time that all were shown."""
    places = np.arange(first, first + count)
    return np.array(
        [epoch_order(seed, int(place) // items, items)[place % items] for place in places], np.int64
    )


@dataclass(frozen=True)
class StillLoader(Generic[BatchT]):
    """Captioned stills as videos of one or several images, or as films.

    An epoch shows each item of the first set once. Of a second set, each batch has the share that
    `data.second_share` says, so that its items may come less or more often.
    """

    views: Views
    stills: CaptionedStills
    collate: Callable[[Examples], BatchT]
    config: RunSettings
    rank: int = 0
    world: int = 1

    @cached_property
    def shares(self) -> tuple[int, ...]:
        """The items of each set in a batch."""
        settings = self.config
        return _shares(self._sizes, settings.data.second_share, settings.train.batch_size)

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return steps_per_epoch(self._sizes[0], self.shares[0])

    def make(self, epoch: int, number: int) -> BatchT:
        """This process's share of one batch."""
        data, seed = self.config.data, self.config.train.seed
        rng = np.random.default_rng((seed, epoch, number))
        rows = self._rows(epoch * self.steps + number)
        rows = rows[: len(rows) // self.world * self.world]
        captions = self.stills.captions
        chosen = np.array([rng.integers(len(captions[row])) for row in rows], np.int64)
        texts = _chosen(captions, rows, chosen)
        by_length = _by_length(texts)
        rows, chosen, texts = rows[by_length], chosen[by_length], [texts[i] for i in by_length]
        items = self.stills.items
        pool = np.zeros(0, np.int64)
        if data.film_share:
            foreign = unrelated(rows, texts, captions, data.noise_pool, rng)
            pool = np.array([items[row][rng.integers(len(items[row]))] for row in foreign], np.int64)
            if len(self.stills.uncaptioned):
                pool = rng.permutation(np.concatenate([pool, self._uncaptioned(epoch * self.steps + number)]))
        views = [[v for v in range(data.views) if not (names_sides(text) and flips(v))] for text in texts]
        plan = compose([items[row] for row in rows], pool, data, self.config.model.frames, rng, views)
        plan = part(plan, self.rank, self.world)
        own = share_of(len(rows), self.rank, self.world)
        answers = _chosen(self.stills.answers, rows[own], chosen[own])
        if data.opening_share:
            texts = [with_opening(text, data.opening_share, rng) for text in texts]
        if data.stop_share:
            texts = [with_other_stop(text, data.stop_share, rng) for text in texts]
        return self.collate(
            Examples(
                self.views.frames(plan),
                plan.slots,
                plan.mask,
                tuple(texts[own]),
                rows[own],
                tuple(answers),
                self.views.teacher(plan),
                self._taught(plan),
                None if self.stills.taught is None else torch.from_numpy(plan.first),
            )
        )

    def _taught(self, plan: FilmPlan) -> torch.Tensor | None:
        """The other encoder's embedding of each frame; zeros for mixed and plain ones. → [F, Ht]"""
        if self.stills.taught is None:
            return None
        taught = self.stills.taught
        rows = np.where(plan.plain, plan.images[:, 0], 0)
        views = np.minimum(plan.views[:, 0], taught.shape[1] - 1)
        return torch.from_numpy(taught[rows, views] * plan.plain[:, None].astype(np.float32))

    def _uncaptioned(self, number: int) -> Rows:
        """The images without captions of a batch, by its number in the whole run."""
        places = self.stills.uncaptioned
        share = min(self.config.data.uncaptioned_pool, len(places))
        return places[_endless(self.config.train.seed, len(places), number * share, share)]

    @property
    def _sizes(self) -> list[int]:
        return [part.items for part in self.stills.sets]

    def _rows(self, number: int) -> Rows:
        """The items of a batch, by its number in the whole run."""
        seed, before, rows = self.config.train.seed, 0, []
        for size, share in zip(self._sizes, self.shares, strict=True):
            share = min(share, size)
            rows.append(before + _endless(seed, size, number * share, share))
            before += size
        return np.concatenate(rows)


@dataclass(frozen=True)
class VideoLoader(Generic[BatchT]):
    """Captioned videos in pixels. An epoch shows each pair of a video and a caption once."""

    source: Source
    collate: Callable[[Examples], BatchT]
    config: RunSettings
    rank: int = 0
    world: int = 1

    @cached_property
    def pairs(self) -> tuple[Rows, Rows]:
        """Each pair's video, and the number of its caption among the video's captions."""
        counts = [len(group) for group in self.source.captions]
        return np.repeat(np.arange(len(counts)), counts), np.concatenate([np.arange(c) for c in counts])

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return steps_per_epoch(len(self.pairs[0]), self.config.train.batch_size)

    def make(self, epoch: int, number: int) -> BatchT:
        """This process's share of one batch; pairs of one video share its frames."""
        seed, size = self.config.train.seed, self.config.train.batch_size
        slots, image_size = self.config.model.frames, self.config.model.image_size
        owner, caption = self.pairs
        pairs = epoch_order(seed, epoch, len(owner))[number * size : (number + 1) * size]
        pairs = pairs[: len(pairs) // self.world * self.world]
        texts = _chosen(self.source.captions, owner[pairs], caption[pairs])
        by_length = _by_length(texts)
        own = share_of(len(pairs), self.rank, self.world)
        pairs, texts = pairs[by_length][own], [texts[i] for i in by_length][own]
        rows = owner[pairs]
        table, mask = np.zeros((len(rows), slots), np.int64), np.zeros((len(rows), slots), np.float32)
        packed: list[Frames] = []
        total = 0
        for video in np.unique(rows):
            rng = np.random.default_rng((seed, epoch, number, int(video)))
            shown = self.source.frames(int(video), slots, image_size, rng)
            if self.config.data.augment:
                said = [text for row, text in zip(rows, texts, strict=True) if row == video]
                flip = bool(rng.random() < 0.5) and not any(map(names_sides, said))
                augmentation = Augmentation.draw(rng, flip=flip)
                shown = np.stack([augmentation.apply(frame) for frame in shown])
            places = np.sort(rng.choice(slots, len(shown), replace=False))
            for row in np.flatnonzero(rows == video):
                table[row, places], mask[row, places] = np.arange(total, total + len(shown)), 1.0
            packed.append(shown)
            total += len(shown)
        frames = torch.from_numpy(np.concatenate(packed))
        answers = _chosen(self.source.answers, rows, caption[pairs])
        return self.collate(Examples(frames, table, mask, tuple(texts), rows, tuple(answers)))


def _chosen(groups: Sequence[Sequence[str]], rows: Rows, places: Rows) -> list[str]:
    """A text of each video, by its place among the video's texts; none if there are no groups."""
    return [groups[row][place] for row, place in zip(rows, places, strict=True)] if groups else []


def share_of(count: int, rank: int, world: int) -> slice:
    """This process's share of a batch: consecutive rows, as `films.part` takes them."""
    size = count // world
    return slice(rank * size, (rank + 1) * size)


def ahead(make: Callable[[int], BatchT], numbers: Iterable[int], workers: int) -> Generator[BatchT]:
    """Batches in order, made ahead by `workers` threads; with 0 workers each is made when it is needed."""
    if not workers:
        yield from map(make, numbers)
        return
    waiting: deque[Future[BatchT]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="batches") as pool:
        try:
            for number in numbers:
                waiting.append(pool.submit(make, number))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
