"""The choice of reference texts among captions."""

from __future__ import annotations

import pytest

from model.data.references import sample_captions
from model.runtime.errors import InputError

CAPTIONS = [[f"{item} {number}" for number in range(count)] for item, count in enumerate((3, 1, 5, 2, 0, 3))]
EVERY = {text for texts in CAPTIONS for text in texts}


def items(texts: list[str]) -> list[str]:
    return [text.split()[0] for text in texts]


@pytest.mark.parametrize("count", range(1, 16))
def test_no_item_has_a_second_before_all_have_one(count: int) -> None:
    for seed in range(5):
        chosen = sample_captions(CAPTIONS, count, seed)
        assert len(set(chosen)) == len(chosen) == min(count, len(EVERY))
        assert set(chosen) <= EVERY
        number_of = {item: items(chosen).count(item) for item in "01235"}
        for item, texts in enumerate(CAPTIONS):
            if texts and number_of[str(item)] < len(texts):
                assert number_of[str(item)] >= max(number_of.values()) - 1


def test_the_seed_decides() -> None:
    assert sample_captions(CAPTIONS, 6, 1) == sample_captions(CAPTIONS, 6, 1)
    assert len({tuple(sample_captions(CAPTIONS, 6, seed)) for seed in range(10)}) > 5
    # No caption of an item is preferred.
    assert {sample_captions(CAPTIONS[:1], 1, seed)[0] for seed in range(40)} == set(CAPTIONS[0])


def test_a_caption_that_several_items_have_counts_once() -> None:
    same = [["a dog", "a cat"], ["a dog"], ["a dog", "a fish"]]
    assert sorted(sample_captions(same, 10, 0)) == ["a cat", "a dog", "a fish"]


def test_no_caption() -> None:
    nothing: list[list[list[str]]] = [[], [[], []]]
    for captions in nothing:
        with pytest.raises(InputError, match="has no captions"):
            sample_captions(captions, 10, 0)
