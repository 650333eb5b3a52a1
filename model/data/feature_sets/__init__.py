"""Sets of features with timed text: clips for pre-training, and videos with queries for fine-tuning."""

from __future__ import annotations

from pathlib import Path

from model.data.datasets import SplitName
from model.data.feature_sets.clips import open_clips
from model.data.feature_sets.items import FeatureItem, FeatureSource
from model.data.feature_sets.queries import open_described
from model.data.features import open_features
from model.progress import Report, silent
from model.runtime.errors import InputError
from model.settings import DataConfig

__all__ = ["FeatureItem", "FeatureSource", "open_feature_source"]


def open_feature_source(data: DataConfig, split: SplitName, report: Report = silent) -> FeatureSource:
    """One split of the set of features that the settings name.

    Sets of queries: the videos of the split, each whole; of more than `data.max_vectors` vectors, the first
    ones are kept, or neighbours averaged, as `data.long_videos` says. Videos without text have no lines.
    Training takes the first `data.limit` videos, or all where that is 0.

    Clips, for pre-training: clips of `data.clip_seconds` cut from all videos that have features and text;
    `data.annotations` may name a file that lists the videos to take. Of the videos, `data.validation` are
    held out for the split val; there is no test split. Features may also be of clips that are cut already,
    named `VIDEO.N` as HERO's, where clip N begins at N times `data.clip_seconds`.

    What is left out is reported with its counts.

    Raises:
        InputError: a setting is missing, a file is missing or malformed, videos have no features and
            `data.allow_missing` is false, or nothing is left.
    """
    if not data.has_features:
        raise InputError(
            f"data.kind={data.kind} has no features: use clips, tvr, how2r, didemo_moments or msrvtt_asr"
        )
    store = open_features([Path(path) for path in data.features], data.every_seconds)
    opener = open_clips if data.kind == "clips" else open_described
    return opener(data, split, store, report)
