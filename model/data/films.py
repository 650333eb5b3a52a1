"""Films spliced from still images: an item's images, in one piece, among unrelated frames and transitions.

A plan says what a batch shows before anything is loaded. Slots index packed frames, so the unrelated frames,
which cost an encoder as much as any others, are encoded once for a batch and serve all its films.
Shapes: F packed frames, B videos, N frame slots, R images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.arrays import Array, Rows
from model.runtime.errors import InputError
from model.settings import DataConfig

#: plain frames have negative image numbers; their grey values
BLACK = -1
PLAIN = {BLACK: 0, -2: 255, -3: 128}


@dataclass(frozen=True)
class FilmPlan:
    """What the videos of a batch show.

    A packed frame is a view of an image, or a mix of two views.
    """

    images: Rows
    """int64 [F, 2]: the images that are mixed, the same twice where none are; negative ones are `PLAIN`."""
    views: Rows
    """int64 [F, 2]: the views of these images."""
    share: Array
    """float32 [F]: share of the second image in the mix."""
    slots: Rows
    """int64 [B, N]: the packed frame that each slot shows; 0 where masked."""
    mask: Array
    """float32 [B, N]: 1 for real frames."""
    first: NDArray[np.bool_]
    """bool [F]: this process is the first that shows the frame."""

    @property
    def plain(self) -> NDArray[np.bool_]:
        """Which packed frames show a single image. → bool [F]."""
        plain: NDArray[np.bool_] = (self.share == 0) & (self.images[:, 0] >= 0)
        return plain


class _Frames:
    """Collects packed frames; adding the same one again gives its number."""

    def __init__(self) -> None:
        self.numbers: dict[tuple[int, int, int, int, float], int] = {}
        self.packed: list[tuple[int, int, int, int, float]] = []

    def add(self, shot: tuple[int, int], other: tuple[int, int] | None = None, share: float = 0.0) -> int:
        """The number of a frame: an (image, view), mixed with a share of another one."""
        key = (*shot, *(other or shot), round(share, 4))
        if key not in self.numbers:
            self.numbers[key] = len(self.packed)
            self.packed.append(key)
        return self.numbers[key]

    def single(self, number: int) -> tuple[int, int] | None:
        """The (image, view) of a frame that shows a single image; None for others."""
        image, view, _, _, share = self.packed[number]
        return (image, view) if share == 0 and image >= 0 else None


def unrelated(
    rows: Rows,
    texts: Sequence[str],
    captions: Sequence[Sequence[str]],
    count: int,
    rng: np.random.Generator,
) -> Rows:
    """Items that no text of the batch describes: they are not in it, and have none of its texts as captions.

    Args:
        rows: the batch's items, shape [B].
        texts: the batch's texts.
        captions: the captions of all items.
        count: the number to draw; a small set may give fewer.
        rng: source of the random choice.

    Raises:
        InputError: there is no such item.
    """
    in_batch, batch_texts = set(rows.tolist()), set(texts)
    drawn: list[int] = []
    for item in rng.permutation(len(captions)).tolist():
        if len(drawn) == count:
            break
        if item not in in_batch and batch_texts.isdisjoint(captions[item]):
            drawn.append(item)
    if not drawn:
        raise InputError(
            f"nothing is left for unrelated frames: a batch shows {len(rows)} of {len(captions)} items; "
            "lower train.batch_size or set data.film_share=0"
        )
    return np.array(drawn, np.int64)


def compose(
    items: Sequence[Sequence[int]],
    pool: Rows,
    data: DataConfig,
    slots: int,
    rng: np.random.Generator,
    views: Sequence[Sequence[int]] | None = None,
) -> FilmPlan:
    """Decide what each video of a batch shows: its images, once each or in several views, or a film.

    A film shows a part of the batch's reel (unrelated images with transitions between neighbours), then its
    own images, then the rest of that part; cross-fades may lead into its own part and out of it.

    Args:
        items: the images of each video, in its order; B of them.
        pool: unrelated images, shape [R]; read only if there are films.
        data: shares and sizes.
        slots: N.
        rng: source of all random choices.
        views: the views that each video may show its images in; None: all.
    """
    frames = _Frames()
    kind = rng.random(len(items))
    films = kind < data.film_share
    several = ~films & (rng.random(len(items)) < data.multi_view)
    reel = _reel(frames, pool, data, rng) if films.any() else []
    table = np.zeros((len(items), slots), np.int64)
    mask = np.zeros((len(items), slots), np.float32)
    for i, item in enumerate(items):
        most = min(data.max_views, data.film_frames - 1) if films[i] else data.max_views
        low = 1 if films[i] else min(2, most)
        count = int(rng.integers(low, most + 1)) if films[i] or several[i] else min(len(item), most)
        allowed = range(data.views) if views is None else views[i]
        shown = [frames.add(shot) for shot in _own_shots(item, count, allowed, rng)]
        if films[i]:
            shown = _splice(frames, shown, reel, data, rng)
        # Frames take random slots of the segment, in order, so that every learned position is trained.
        places = np.sort(rng.choice(slots, len(shown), replace=False))
        table[i, places], mask[i, places] = shown, 1.0
    return _plan(frames, table, mask)


def _plan(frames: _Frames, table: Rows, mask: Array) -> FilmPlan:
    packed = frames.packed
    plan = FilmPlan(
        images=np.array([(p[0], p[2]) for p in packed], np.int64),
        views=np.array([(p[1], p[3]) for p in packed], np.int64),
        share=np.array([p[4] for p in packed], np.float32),
        slots=table,
        mask=mask,
        first=np.ones(len(packed), np.bool_),
    )
    return part(plan, 0, 1)


def concatenate(
    groups: Sequence[Sequence[Sequence[int]]], views: int, slots: int, rng: np.random.Generator
) -> FilmPlan:
    """Decide what videos of several items show: each item in its turn, all in as many frames.

    Args:
        groups: the images of each item of each of B videos; at most N items a video.
        views: the views that images are shown in.
        slots: N.
        rng: source of all random choices.
    """
    frames = _Frames()
    table = np.zeros((len(groups), slots), np.int64)
    mask = np.zeros((len(groups), slots), np.float32)
    for i, items in enumerate(groups):
        each = slots // len(items)
        shots = [shot for item in items for shot in _own_shots(item, each, range(views), rng)]
        table[i, : len(shots)], mask[i, : len(shots)] = [frames.add(shot) for shot in shots], 1.0
    return _plan(frames, table, mask)


def _own_shots(
    item: Sequence[int], count: int, views: Sequence[int], rng: np.random.Generator
) -> list[tuple[int, int]]:
    """`count` pairs (image, view) of an item, in the order of its images.

    Images, and then views of an image, repeat only if there are fewer than needed.
    """
    rounds = -(-count // len(item))
    places = np.concatenate([rng.permutation(len(item)) for _ in range(rounds)])[:count]
    shots = []
    for place in np.unique(places).tolist():
        times = int((places == place).sum())
        chosen = rng.permutation(max(len(views), times))[:times] % len(views)
        shots += [(item[place], views[view]) for view in chosen.tolist()]
    return shots


def _reel(frames: _Frames, pool: Rows, data: DataConfig, rng: np.random.Generator) -> list[int]:
    """Unrelated images, one view each, with transitions between neighbours."""
    shots = [(int(image), int(rng.integers(data.views))) for image in pool]
    reel: list[int] = []
    for shot, following in zip(shots, shots[1:] + shots[:1], strict=True):
        reel.append(frames.add(shot))
        while rng.random() < data.transitions:
            choice = rng.random()
            if choice < 0.5:
                reel.append(frames.add(shot, following, float(rng.uniform(0.25, 0.75))))
            elif choice < 0.75:
                reel.append(frames.add(shot, (BLACK, 0), float(rng.uniform(0.4, 0.9))))
            else:
                reel.append(frames.add((int(rng.choice(list(PLAIN))), 0)))
    return reel


def _splice(
    frames: _Frames, own_frames: list[int], reel: list[int], data: DataConfig, rng: np.random.Generator
) -> list[int]:
    """A film's frames: a stretch of the reel with the film's own frames somewhere in it."""
    length = int(rng.integers(max(len(own_frames) + 1, data.film_frames // 2), data.film_frames + 1))
    noise = length - len(own_frames)
    begin, before = int(rng.integers(len(reel))), int(rng.integers(noise + 1))
    stretch = [reel[(begin + i) % len(reel)] for i in range(noise)]
    for place, border in ((before - 1, own_frames[0]), (before, own_frames[-1])):
        if 0 <= place < noise and rng.random() < data.transitions:
            own_shot, other = frames.single(border), frames.single(stretch[place])
            if own_shot and other:
                stretch[place] = frames.add(own_shot, other, float(rng.uniform(0.25, 0.75)))
    return [*stretch[:before], *own_frames, *stretch[before:]]


def part(plan: FilmPlan, rank: int, world: int) -> FilmPlan:
    """The share of one of `world` processes: consecutive videos, and only the frames they show.

    A frame that several processes encode counts for one of them (`first`), so that sums over all processes'
    frames are those of the whole batch.
    """
    size = len(plan.slots) // world
    videos = slice(rank * size, (rank + 1) * size)
    slots, mask = plan.slots[videos], plan.mask[videos]
    used, numbers = np.unique(slots[mask > 0], return_inverse=True)
    earlier = np.unique(plan.slots[: rank * size][plan.mask[: rank * size] > 0])
    packed = np.zeros_like(slots)
    packed[mask > 0] = numbers
    return FilmPlan(
        images=plan.images[used],
        views=plan.views[used],
        share=plan.share[used],
        slots=packed,
        mask=mask,
        first=plan.first[used] & ~np.isin(used, earlier),
    )
