"""Batches of features, texts and queries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from model.families.feel.batch import Queries, check_mask, collate_features
from model.runtime.preprocessing import TextTokenizer
from tests.support.tiny_feel import FRAMES, LENGTHS, QUERIES, TEXTS, features, tiny_batch, tiny_tokenizer


def test_features_are_padded_and_cut() -> None:
    arrays = features([*LENGTHS, 9])
    batch = collate_features(arrays, [*TEXTS, "a"], tiny_tokenizer(), longest=FRAMES)
    assert batch.features.shape == (5, 7, 6)
    assert batch.feature_mask.sum(1).tolist() == [5, 3, 7, 1, 7]
    for row, array in enumerate(arrays):
        count = min(len(array), FRAMES)
        assert np.array_equal(batch.features[row, :count].numpy(), array[:count])
        assert not batch.features[row, count:].any()
    assert batch.query_ids is None
    assert batch.video_ids is None


def test_texts_are_tokenised_and_one_without_words_is_masked_whole() -> None:
    batch, tokenizer = tiny_batch(), tiny_tokenizer()
    for row, text in enumerate(TEXTS):
        length = int(batch.attention_mask[row].sum())
        expected = tokenizer([text]).input_ids[0].tolist() if text else []
        assert batch.input_ids[row, :length].tolist() == expected
        # All but [CLS] and [SEP] may be masked; an unknown word may not, it cannot be predicted.
        known = [number > 4 for number in expected]
        assert batch.maskable[row, :length].tolist() == known
        assert not batch.maskable[row, length:].any()
    assert batch.mask_id == 4
    nothing = collate_features(features([2, 1]), ["", " \n"], tokenizer, longest=FRAMES)
    assert nothing.input_ids.shape == (2, 1)
    assert not nothing.attention_mask.any()


def test_queries_keep_their_videos_and_spans() -> None:
    batch = tiny_batch(video_ids=[8, 8, 3, 4])
    assert batch.query_rows is not None
    assert batch.spans is not None
    assert batch.video_ids is not None
    assert batch.query_rows.tolist() == [0, 2, 2, 0, 3]
    assert batch.spans.tolist() == [[0, 2], [3, 6], [-1, -1], [4, 4], [0, 0]]
    assert batch.video_ids.tolist() == [8, 8, 3, 4]
    cut = Queries(["a dog", "rice"], [0, 1], [(2, 5), (0, 2)])
    spans = tiny_batch(queries=cut).spans
    assert spans is not None
    assert spans.tolist() == [[-1, -1], [0, 2]], "row 0 has 5 features: the last is number 4"
    without = tiny_batch(queries=Queries(["rice"], [3])).spans
    assert without is not None
    assert without.tolist() == [[-1, -1]]


def test_a_batch_moves_to_a_device_whole() -> None:
    moved = tiny_batch().to("meta")
    tensors = [value for value in vars(moved).values() if isinstance(value, torch.Tensor)]
    assert len(tensors) == 9
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert moved.mask_id == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": []}, "features is empty"),
        ({"features": [np.zeros((0, 6), np.float32)]}, r"features of video 0 are \[0, 6\]"),
        (
            {"features": [np.zeros((2, 6), np.float32), np.zeros((2, 5), np.float32)]},
            r"features of video 1 are \[2, 5\]: pass \[M, 6\]",
        ),
        ({"texts": ["a"]}, "2 videos, 1 texts and no ids: pass one of each"),
        ({"video_ids": [1]}, "2 videos, 2 texts and 1 ids"),
        ({"queries": Queries(["a"], [0, 1])}, "1 queries must have 1 rows"),
        ({"queries": Queries(["a"], [2])}, r"queries name rows \[2\]: the batch has rows 0 to 1"),
        ({"queries": Queries(["a", " "], [0, 1])}, "text 1 is empty"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    values: dict[str, Any] = {"features": features([2, 3]), "texts": ["a", "dog"]}
    values |= changes
    with pytest.raises(ValueError, match=message):
        collate_features(
            values.pop("features"), values.pop("texts"), tiny_tokenizer(), longest=FRAMES, **values
        )


def test_a_tokenizer_without_a_mask_is_named() -> None:
    plain = TextTokenizer(Tokenizer(WordLevel({"a": 0, "[UNK]": 1}, "[UNK]")), 5)
    batch = collate_features(features([2]), ["a"], plain, longest=FRAMES)
    assert batch.mask_id == -1
    with pytest.raises(ValueError, match=r"no special token <mask> or \[MASK\]: .*set loss.mlm=0"):
        check_mask(batch)
    assert len(QUERIES.texts) == 5
