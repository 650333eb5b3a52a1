"""Random predictions of moments, with everything that evaluators may disagree on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from model.data.datasets.moments import Moment


def random_span(rng: random.Random, spans: Sequence[tuple[float, float]]) -> list[float]:
    """The annotated span, one whose IoU with it is just a threshold, an empty, a reversed or any span."""
    start, end = rng.choice(spans)
    share = rng.choice([0.5, 0.55, 0.7, 0.75, 0.95])
    begin = rng.randrange(40) * 1.5
    return rng.choices(
        [
            [start, end],
            [start, start + (end - start) * share],
            [start, start + (end - start) / share],
            [start, start],
            [begin, begin + rng.randrange(1, 20) * 1.5],
        ],
        weights=[1, 2, 1, 1, 5],
    )[0]


def random_submission(
    moments: Sequence[Moment], seed: int, tasks: Sequence[str] = ("VCMR", "SVMR", "VR")
) -> dict[str, Any]:
    """Predictions in TVR's format: few or too many, repeated, of other or unknown videos, in any order."""
    rng = random.Random(seed)
    names = [*sorted({moment.video_id for moment in moments}), "other_1", "other_2"]
    numbers = {name: 19_614 + place for place, name in enumerate(names)}
    values: dict[str, Any] = {"video2idx": numbers}
    for task in tasks:
        rows = []
        for moment in moments:
            predictions: list[list[float]] = []
            for _ in range(rng.choice([0, 1, 2, 4, 9, 30, 100, 130])):
                right = rng.random() < 0.25
                video = numbers[moment.video_id] if right else rng.choice([*numbers.values(), 7])
                span = random_span(rng, moment.spans)
                if rng.random() < 0.1:
                    span.reverse()
                predictions += [[video, *span, rng.random()]] * rng.choice([1, 1, 1, 2])
            rows.append({"desc_id": int(moment.moment_id), "desc": moment.text, "predictions": predictions})
        rng.shuffle(rows)
        values[task] = rows
    return values
