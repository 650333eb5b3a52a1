"""Texts that are encoded in parts of similar length against each text alone."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch

from tests.support.tiny_lgdn import tiny_model

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("settings", [{}, {"fusion": "cross_attention"}], ids=["joint", "cross-attention"])
@pytest.mark.parametrize("count", [1, 2, 33, 70])
def test_texts_of_any_lengths_are_encoded_as_alone_and_in_their_order(
    settings: dict[str, object], count: int
) -> None:
    towers = tiny_model(**settings).online.eval()
    generator = torch.Generator().manual_seed(count)
    length = 9
    lengths = torch.randint(1, length + 1, (count,), generator=generator)
    mask = (torch.arange(length) < lengths[:, None]).long()
    ids = torch.randint(1, towers.text.vocabulary, (count, length), generator=generator) * mask

    with torch.no_grad():
        together = towers.encode_text(ids, mask)
        for row, own in enumerate(lengths.tolist()):
            alone = towers.encode_text(ids[row : row + 1, :own], mask[row : row + 1, :own])
            torch.testing.assert_close(together.embedding[row], alone.embedding[0])
            torch.testing.assert_close(together.tokens[row, :own], alone.tokens[0])

    assert together.tokens.shape[:2] == (count, length)
    assert torch.equal(together.attention_mask, mask)
