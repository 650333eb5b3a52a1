"""What training reads, and the batches made of it.

A batch depends on (seed, epoch, batch number) alone: a resumed run sees what an uninterrupted one would, and
each of several processes makes its share of the batch that one process would make.
Shapes: B videos, F packed frames, N frame slots, L text tokens.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from model.config import Config
from model.data.films import compose, part, unrelated
from model.data.view_cache import ViewCache
from model.families.lgdn.network import Batch
from model.runtime.preprocessing import TextTokenizer, load_image, resize_frames

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class CaptionedPhotos:
    """Photos of one split with their captions."""

    folder: Path
    names: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.names)

    def first(self, count: int) -> CaptionedPhotos:
        """Only the first `count` of them; 0: all."""
        return self if not count else CaptionedPhotos(self.folder, self.names[:count], self.captions[:count])

    def load(self, index: int, size: int) -> NDArray[np.uint8]:
        """One photo by the serving path's resize rule. Shape [size, size, 3]."""
        photo: NDArray[np.uint8] = resize_frames(load_image(self.folder / self.names[index])[None], size)[0]
        return photo


class VideoSource(Protocol):
    """A set of captioned videos, as `model.data.datasets` opens them."""

    captions: Sequence[Sequence[str]]

    def __len__(self) -> int: ...

    def frames(self, index: int, count: int, size: int, rng: np.random.Generator | None) -> NDArray[np.uint8]:
        """A random frame of each of `count` equal parts, or by None the middle ones; fewer of a short video.

        Shape [n, size, size, 3], 1 ≤ n ≤ count.
        """


class Loader(Protocol):
    """Makes the batches of an epoch by their numbers."""

    @property
    def steps(self) -> int:
        """Batches an epoch."""

    def make(self, epoch: int, number: int) -> Batch:
        """One batch, of which this process gets its share."""


def read_captions(path: Path, split: str) -> CaptionedPhotos:
    """Read `captions.csv` (image, split, caption) and keep one split.

    Raises:
        ValueError: when the folder or the split is not there.
    """
    table = path / "captions.csv"
    if not table.is_file():
        raise ValueError(f"no captions.csv in {path}: pass the data set's folder as data=DIR")
    groups: dict[str, list[str]] = {}
    try:
        with table.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if row["split"] == split:
                    groups.setdefault(row["image"], []).append(row["caption"])
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{table} cannot be read as a CSV file in UTF-8: {error}") from error
    except KeyError as error:
        raise ValueError(
            f"{table} has no column {error}: its columns must be image, split, caption"
        ) from error
    if not groups:
        raise ValueError(f"{table} has no rows of split {split!r}")
    names = tuple(sorted(groups))
    return CaptionedPhotos(path / "images", names, tuple(tuple(groups[n]) for n in names))


def steps_per_epoch(items: int, batch_size: int) -> int:
    """Whole batches only; a smaller last one would weigh its items more. A tiny set gives one batch."""
    return max(1, items // batch_size)


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, items: int) -> Rows:
    """The order of an epoch; shared, so read only."""
    order: Rows = np.random.default_rng((seed, epoch)).permutation(items)
    return order


def _by_length(texts: Sequence[str]) -> list[int]:
    """The text encoder works in parts, each padded to its own longest text: like lengths side by side."""
    return sorted(range(len(texts)), key=lambda i: len(texts[i]))


@dataclass(frozen=True)
class PhotoLoader:
    """Captioned photos as videos of one or several views, and as films. An epoch shows each photo once."""

    cache: ViewCache
    photos: CaptionedPhotos
    tokenizer: TextTokenizer
    config: Config
    #: classes of the teacher; 0: none
    classes: int = 0
    rank: int = 0
    world: int = 1

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return steps_per_epoch(len(self.photos), self.config.train.batch_size)

    def make(self, epoch: int, number: int) -> Batch:
        """One batch, of which this process gets its share."""
        data, seed, size = self.config.data, self.config.train.seed, self.config.train.batch_size
        rng = np.random.default_rng((seed, epoch, number))
        rows = _order(seed, epoch, len(self.photos))[number * size : (number + 1) * size]
        rows = rows[: len(rows) // self.world * self.world]
        captions = self.photos.captions
        texts = [captions[r][rng.integers(len(captions[r]))] for r in rows]
        by_length = _by_length(texts)
        rows, texts = rows[by_length], [texts[i] for i in by_length]
        pool = (
            unrelated(rows, texts, captions, data.noise_pool, rng)
            if data.film_share
            else np.zeros(0, np.int64)
        )
        plan = compose(rows, pool, data, self.config.model.frames, rng)
        plan = part(plan, self.rank, self.world)
        return _batch(
            self.cache.frames(plan),
            plan.slots,
            plan.mask,
            self.tokenizer,
            *_mine(rows, texts, self.rank, self.world),
            self.cache.teacher(plan, self.classes) if self.classes else None,
        )


@dataclass(frozen=True)
class VideoLoader:
    """Captioned videos as they are, in pixels. An epoch shows each pair of a video and a caption once."""

    source: VideoSource
    tokenizer: TextTokenizer
    config: Config
    rank: int = 0
    world: int = 1

    @cached_property
    def pairs(self) -> tuple[Rows, Rows]:
        """The video and the caption's number of each pair."""
        counts = [len(group) for group in self.source.captions]
        return np.repeat(np.arange(len(counts)), counts), np.concatenate([np.arange(c) for c in counts])

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return steps_per_epoch(len(self.pairs[0]), self.config.train.batch_size)

    def make(self, epoch: int, number: int) -> Batch:
        """One batch, of which this process gets its share; pairs of one video share its frames."""
        seed, size = self.config.train.seed, self.config.train.batch_size
        slots, image_size = self.config.model.frames, self.config.model.image_size
        owner, caption = self.pairs
        pairs = _order(seed, epoch, len(owner))[number * size : (number + 1) * size]
        pairs = pairs[: len(pairs) // self.world * self.world]
        texts = [self.source.captions[owner[p]][caption[p]] for p in pairs]
        by_length = _by_length(texts)
        rows, texts = owner[pairs[by_length]], [texts[i] for i in by_length]
        rows, texts = _mine(rows, texts, self.rank, self.world)
        table, mask = np.zeros((len(rows), slots), np.int64), np.zeros((len(rows), slots), np.float32)
        packed: list[NDArray[np.uint8]] = []
        total = 0
        for video in np.unique(rows):
            rng = np.random.default_rng((seed, epoch, number, int(video)))
            shown = self.source.frames(int(video), slots, image_size, rng)
            places = np.sort(rng.choice(slots, len(shown), replace=False))
            for row in np.flatnonzero(rows == video):
                table[row, places], mask[row, places] = np.arange(total, total + len(shown)), 1.0
            packed.append(shown)
            total += len(shown)
        frames = torch.from_numpy(np.concatenate(packed))
        return _batch(frames, table, mask, self.tokenizer, rows, texts, None)


def _mine(rows: Rows, texts: list[str], rank: int, world: int) -> tuple[Rows, list[str]]:
    """Consecutive rows, as `films.part` takes them."""
    size = len(rows) // world
    return rows[rank * size : (rank + 1) * size], texts[rank * size : (rank + 1) * size]


def _batch(
    frames: torch.Tensor,
    slots: Rows,
    mask: NDArray[np.float32],
    tokenizer: TextTokenizer,
    rows: Rows,
    texts: list[str],
    teacher: torch.Tensor | None,
) -> Batch:
    tokens = tokenizer(texts)
    return Batch(
        frames=frames,
        slots=torch.from_numpy(slots),
        frame_mask=torch.from_numpy(mask),
        input_ids=torch.from_numpy(tokens.input_ids),
        attention_mask=torch.from_numpy(tokens.attention_mask),
        video_ids=torch.from_numpy(rows),
        teacher=teacher,
    )


def ahead(make: Callable[[int], Batch], numbers: Iterable[int], workers: int) -> Generator[Batch]:
    """Batches in order, made by threads while training computes; no workers: made when asked for."""
    if not workers:
        yield from map(make, numbers)
        return
    waiting: deque[Future[Batch]] = deque()
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
