"""Films with subtitles that tell what is not shown, and leave out what is (FEEL, Figure 1b), as plans.

A film is a row of shots with cuts between them; each shot shows one captioned item: a photo in some views, or
frames of a video. Some shots have no subtitle, and some subtitles speak of items that the film does not show.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from model.arrays import Rows
from model.data.features.making import interval_middles
from model.settings import check_rules

_SHORTEST_LINE = 0.5


@dataclass(frozen=True)
class FilmOptions:
    """What films are like. Shares are probabilities; lengths are drawn evenly between their limits.

    Raises:
        InputError: a value is invalid.
    """

    seed: int = 0
    every_seconds: float = 1.5
    min_shots: int = 3
    max_shots: int = 6
    min_shot_seconds: float = 3.0
    max_shot_seconds: float = 9.0
    #: share of the shots without a subtitle
    untold: float = 0.3
    #: share of the subtitles that speak of an item which the film does not show
    unshown: float = 0.3
    #: a subtitle begins and ends up to this many seconds before or after its shot does
    jitter_seconds: float = 1.0
    #: views of a photo: the photo itself and altered ones; frames of videos are shown as they are
    views: int = 2
    #: share of the training items that fine-tuning gets; pre-training gets the others
    finetuning: float = 0.25
    #: how often pre-training's films show each of its items, in other company each time
    pretraining_rounds: int = 4
    #: how often fine-tuning's films to train on show each of their items
    training_rounds: int = 3

    def __post_init__(self) -> None:
        check_rules(self._rules())

    def _rules(self) -> Iterator[tuple[bool, str]]:
        yield self.every_seconds > 0, f"every_seconds is {self.every_seconds}: it must be above 0"
        yield (
            1 <= self.min_shots <= self.max_shots,
            f"min_shots is {self.min_shots}: it must be 1 to max_shots, {self.max_shots}",
        )
        yield (
            self.every_seconds <= self.min_shot_seconds <= self.max_shot_seconds,
            f"min_shot_seconds is {self.min_shot_seconds}: it must be from every_seconds to max_shot_seconds",
        )
        for name in ("untold", "unshown"):
            yield 0 <= getattr(self, name) < 1, f"{name} is {getattr(self, name)}: it must be in [0, 1)"
        yield 0 < self.finetuning < 1, f"finetuning is {self.finetuning}: it must be in (0, 1)"
        yield self.jitter_seconds >= 0, f"jitter_seconds is {self.jitter_seconds}: it must be 0 or more"
        for name in ("views", "pretraining_rounds", "training_rounds"):
            yield getattr(self, name) >= 1, f"{name} is {getattr(self, name)}: it must be 1 or more"


@dataclass(frozen=True)
class Shot:
    """A part of a film that shows one item.

    Attributes:
        item: what it shows.
        start_seconds: where it begins.
        end_seconds: where it ends.
        told: whether a subtitle speaks of it.
        query: another caption than its subtitle's; None: the item has no other one.
    """

    item: int
    start_seconds: float
    end_seconds: float
    told: bool
    query: str | None


@dataclass(frozen=True)
class Subtitle:
    """A line of a film, and the item that it speaks of; `shown` tells whether the film shows that."""

    start_seconds: float
    end_seconds: float
    text: str
    item: int
    shown: bool


@dataclass(frozen=True)
class Film:
    """A film. `pictures` are the item and the number of its picture for each vector, in order."""

    name: str
    shots: tuple[Shot, ...]
    subtitles: tuple[Subtitle, ...]
    pictures: tuple[tuple[int, int], ...]

    @property
    def duration_seconds(self) -> float:
        """Where the last shot ends."""
        return self.shots[-1].end_seconds


def plan_films(
    captions: Sequence[Sequence[str]],
    pictures: Sequence[int],
    items: Rows,
    options: FilmOptions,
    rng: np.random.Generator,
    *,
    name: str,
    rounds: int = 1,
) -> tuple[Film, ...]:
    """Plan films of some items.

    In a round each item is used once: it is shown, or it is what a subtitle speaks of without its being
    shown. So with one round, a query describes one shot alone, and no subtitle of another film.

    Args:
        captions: of all items.
        pictures: how many pictures there are of each item.
        items: the items to use, by their places; what remains of a round and fills no film is left out.
        options: what films are like.
        rng: source of all random choices.
        name: films are named so, with a number.
        rounds: how often each item is used.
    """
    films: list[Film] = []
    for _ in range(rounds):
        rest = [int(item) for item in rng.permutation(items)]
        while True:
            shots = int(rng.integers(options.min_shots, options.max_shots + 1))
            told = rng.random(shots) >= options.untold
            wrong = told & (rng.random(shots) < options.unshown)
            needed = shots + int(wrong.sum())
            if needed > len(rest):
                break
            shown, unshown = rest[:shots], rest[shots:needed]
            rest = rest[needed:]
            speaks = [item if t else None for item, t in zip(shown, told, strict=True)]
            for place, item in zip(np.flatnonzero(wrong), unshown, strict=True):
                speaks[place] = item
            label = f"{name}_{len(films):05d}"
            films.append(_film(label, shown, speaks, captions, pictures, options, rng))
    return tuple(films)


def _film(
    name: str,
    shown: Sequence[int],
    speaks: Sequence[int | None],
    captions: Sequence[Sequence[str]],
    pictures: Sequence[int],
    options: FilmOptions,
    rng: np.random.Generator,
) -> Film:
    """A film of the items `shown`, whose subtitles speak of the items `speaks`; None: there is none."""
    lengths = rng.uniform(options.min_shot_seconds, options.max_shot_seconds, len(shown))
    ends = np.round(np.cumsum(lengths), 2)
    starts = np.concatenate([[0.0], ends[:-1]])
    shots: list[Shot] = []
    subtitles: list[Subtitle] = []
    for item, spoken, start, end in zip(shown, speaks, starts.tolist(), ends.tolist(), strict=True):
        query: str | None = str(rng.choice(captions[item]))
        if spoken is not None:
            text = str(rng.choice(captions[spoken]))
            begin, until = _jittered(start, end, float(ends[-1]), options.jitter_seconds, rng)
            subtitles.append(Subtitle(begin, until, text, spoken, shown=spoken == item))
            others = [caption for caption in captions[item] if spoken != item or caption != text]
            query = str(rng.choice(others)) if others else None
        shots.append(Shot(item, start, end, spoken == item, query))
    middles = interval_middles(float(ends[-1]), options.every_seconds)
    # A cut belongs to the shot that it begins.
    places = np.minimum(np.searchsorted(ends, middles, side="right"), len(shown) - 1)
    shows: list[tuple[int, int]] = []
    for place, item in enumerate(shown):
        # Frames of a video stay in their order.
        numbers = np.sort(rng.integers(pictures[item], size=int((places == place).sum())))
        shows += [(item, int(number)) for number in numbers]
    return Film(name, tuple(shots), tuple(subtitles), tuple(shows))


def _jittered(
    start: float, end: float, duration: float, jitter: float, rng: np.random.Generator
) -> tuple[float, float]:
    """When a subtitle is there: about as long as its shot, and within the film."""
    moved = np.array([start, end]) + rng.uniform(-jitter, jitter, 2)
    begin = float(np.clip(moved[0], 0.0, duration - _SHORTEST_LINE))
    until = float(np.clip(moved[1], begin + _SHORTEST_LINE, duration))
    return round(begin, 2), round(until, 2)
