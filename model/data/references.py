"""Chooses reference texts from captions: how near a segment is to them all tells how much of a hub it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.data.feature_sets import open_feature_source
from model.data.sources import open_source
from model.progress import Report
from model.runtime.errors import InputError
from model.settings import RunSettings

#: How many captions are chosen unless told.
NUM_REFERENCES = 3000


def reference_texts(config: RunSettings, count: int, report: Report) -> list[str]:
    """Reference texts for a model that was trained with these settings: `sample_captions` of its own data.

    Raises:
        InputError: the training data is not there, or has no captions.
    """
    if config.data.has_features:
        captions = open_feature_source(config.data, "train", report).captions
    else:
        captions = open_source(config, "train", report).captions
    return sample_captions(captions, count, config.train.seed)


def sample_captions(captions: Sequence[Sequence[str]], count: int, seed: int) -> list[str]:
    """Choose different captions at random: one of each item, then a second one of each, and so on.

    Args:
        captions: the captions of each item.
        count: how many to choose; all, if there are fewer.
        seed: decides the choice.

    Raises:
        InputError: there is no caption.
    """
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(texts)) for texts in captions]
    chosen: dict[str, None] = {}
    for number in range(max(map(len, captions), default=0)):
        for item in rng.permutation(len(captions)):
            if number < len(orders[item]) and len(chosen) < count:
                chosen[captions[item][orders[item][number]]] = None
    if not chosen:
        raise InputError("the training data has no captions to choose reference texts from")
    return list(chosen)
