"""Full stops at the end of captions, taken away or put there in training.

Sets of captions have them or not, so that a model would take a stop for a sign of the set.
"""

from __future__ import annotations

import numpy as np


def with_other_stop(text: str, share: float, rng: np.random.Generator) -> str:
    """The text, in a `share` of the calls without its full stop at the end, or with one if it has none."""
    if rng.random() >= share:
        return text
    bare = text.rstrip()
    return bare.removesuffix(".").rstrip() if bare.endswith(".") else f"{bare}."
