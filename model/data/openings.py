"""Openings that descriptions of videos often have, put before captions in training.

People who describe a video begin with words that say nothing of it ("The video shows …"). A model that has
never read them gives them a meaning.
"""

from __future__ import annotations

import numpy as np

OPENINGS = (
    "the video shows",
    "this video shows",
    "a video of",
    "a clip of",
    "in this video,",
    "in the video,",
    "the clip shows",
    "the scene shows",
    "we see",
    "footage of",
)


def with_opening(text: str, share: float, rng: np.random.Generator) -> str:
    """The text, in a `share` of the calls with a random opening before it."""
    if rng.random() >= share:
        return text
    return f"{OPENINGS[rng.integers(len(OPENINGS))]} {text}"
