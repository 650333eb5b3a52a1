"""What a pre-trained FEEL reconstructs of films that it has not seen, against films taken one at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import fmean, median

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor

from model.arrays import Array
from model.data.feature_sets import FeatureSource, open_feature_source
from model.experiments.feel_diagnosis import DIAGNOSED, diagnose, shares_of_constant
from model.families.feel.batch import collate_features
from model.families.feel.config import FeelLossConfig
from model.families.feel.network import Feel
from model.settings import DataConfig
from tests.support.feature_sets import WIDTH, write_tvr
from tests.support.tiny_feel import tiny_feel, tiny_tokenizer

TOKENIZER = tiny_tokenizer(words=["ann", "sees", "the", "dog", "train", "cake", "guitar", "snow", "boat"])


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> FeatureSource:
    """More films than are converted at once, of different lengths."""
    tiny = write_tvr(tmp_path_factory.mktemp("tvr"), count=45)
    return open_feature_source(DataConfig(**tiny.settings("tvr", max_vectors=7, long_videos="pool")), "train")


@torch.no_grad()
def converted(model: Feel, source: FeatureSource, row: int) -> dict[str, dict[str, Array]]:
    """The pooled target of one film, and what is converted to it, without padding."""
    item = source.item(row)
    batch = collate_features([item.features], [item.text], TOKENIZER, longest=model.config.frames)
    videos, texts = batch.feature_mask, batch.attention_mask
    e_v, e_t = model.embed_features(batch.features), model.embed_text(batch.input_ids, texts)
    made, cross = model.converter(e_v, e_t, videos, texts), model.converter.cross
    text_alone = model.converter.text_to_video.convert(cross.text_alone(e_t, texts), texts)
    video_alone = model.converter.video_to_text.convert(cross.video_alone(e_v, videos), videos)
    sequences: dict[str, dict[str, Tensor | None]] = {
        "v": {"target": e_v, "once": made.once_v, "alone": text_alone, "twice": made.twice_v},
        "t": {"target": e_t, "once": made.once_t, "alone": video_alone, "twice": made.twice_t},
    }
    return {
        modality: {name: x[0].mean(0).numpy() for name, x in group.items() if x is not None}
        for modality, group in sequences.items()
    }


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Many small networks are run: on a busy machine threads would wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def distance(a: Array, b: Array, kind: str = "mse") -> float:
    squares = [(float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True)]
    return fmean(squares) if kind == "mse" else math.sqrt(sum(squares))


@pytest.mark.parametrize(("kind", "masked"), [("mse", False), ("euclidean", True)])
def test_errors_of_a_model_against_each_film_alone(films: FeatureSource, kind: str, masked: bool) -> None:
    model = tiny_feel(feature_dim=WIDTH, dropout=0.3, target_masked=masked).eval()
    each = [converted(model, films, row) for row in range(len(films))]
    # The middle one of the margins that the films keep, so that hinges are seen on both sides of 0.
    margin = max(0.0, median(_kept(film[m], kind) for film in each for m in ("v", "t")))
    loss = FeelLossConfig(cs_distance=kind, margin=margin)
    found = diagnose(model.train(), TOKENIZER, films, loss)
    for modality, values in found.items():
        group = [film[modality] for film in each]
        centre = np.mean([film["target"] for film in group], axis=0)
        expected = {"constant": fmean(distance(film["target"], centre) for film in group)}
        for name in ("once", "alone", "twice"):
            expected[name] = fmean(distance(film["target"], film[name]) for film in group)
        expected["active"] = fmean(_kept(film, kind) < margin for film in group)
        expected["told"] = told(group)
        assert list(values) == list(DIAGNOSED)
        assert values == pytest.approx(expected, rel=1e-4), modality
        assert (values["once"] == pytest.approx(values["alone"], rel=1e-5)) == masked
    assert 0 < sum(values["active"] for values in found.values()) < 2


def told(group: list[dict[str, Array]]) -> float:
    """The share of films with fewer than ten other targets that are as near as their own."""
    sides = [np.stack([film[name] for film in group]) for name in ("alone", "target")]
    one, other = ([row / np.linalg.norm(row) for row in side - side.mean(0)] for side in sides)
    nearer = [sum(float(x @ y) >= float(x @ own) for y in other) for x, own in zip(one, other, strict=True)]
    return fmean(count <= 10 for count in nearer)


def _kept(film: dict[str, Array], kind: str) -> float:
    """By how much what is converted twice is nearer to the target than what is converted once."""
    return distance(film["target"], film["once"], kind) - distance(film["target"], film["twice"], kind)


def test_an_error_is_a_share_of_that_of_a_constant() -> None:
    values = {"constant": 0.5, "once": 0.25, "alone": 0.5, "twice": 0.1, "active": 0.3}
    shares = shares_of_constant({"v": values, "t": {**values, "constant": 0.25}})
    assert shares == pytest.approx(
        {"v once": 0.5, "v alone": 1.0, "v twice": 0.2, "t once": 1.0, "t alone": 2.0, "t twice": 0.4}
    )
