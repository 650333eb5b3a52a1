"""Which videos of a set are taken: those with features, and those that a split gets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.data.datasets import SplitName
from model.data.datasets.files import plain_names
from model.data.features import FeatureStore
from model.progress import Report
from model.runtime.errors import InputError
from model.settings import DataConfig

# The videos that are held out are drawn with this seed, so that every run has the same ones.
_HELD_OUT_SEED = 0
_NAMED = 5


def stored_name(video_id: str, store: FeatureStore) -> str | None:
    """The name under which a store has the features of a video; None where it has none."""
    return next((name for name in plain_names(video_id) if name in store), None)


def report_missing(name: str, missing: Sequence[str], total: int, data: DataConfig, report: Report) -> None:
    """Report videos without features, or refuse them.

    Raises:
        InputError: there are some and `data.allow_missing` is false, or no video has any.
    """
    if not total:
        raise InputError(f"{name}: the annotation files name no video")
    if not missing:
        return
    first = ", ".join(missing[:_NAMED]) + (", …" if len(missing) > _NAMED else "")
    message = (
        f"{name}: {len(missing)} of {total} videos have no features in {', '.join(data.features)}: {first}"
    )
    if len(missing) == total:
        raise InputError(f"{message}; set data.features to the features of these videos")
    if not data.allow_missing:
        raise InputError(f"{message}; get them, or set data.allow_missing=true to do without them")
    report(f"{message}; going on without them")


def held_out(total: int, count: int, split: SplitName) -> list[int]:
    """The places of the videos that a split gets: `count` go to validation, all others train.

    Raises:
        InputError: none would train.
    """
    if not count or split == "test":
        return list(range(total))
    if count >= total:
        raise InputError(f"data.validation={count} leaves none of the {total} videos to train on")
    chosen = set(np.random.default_rng(_HELD_OUT_SEED).permutation(total)[:count].tolist())
    return [i for i in range(total) if (i in chosen) == (split == "val")]
