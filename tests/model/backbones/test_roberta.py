"""RoBERTa against that of transformers, and its tokenizer from each form of its files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from safetensors.torch import load_file, save_file

from model.backbones import with_text_shape
from model.backbones.published import text_sources, text_tokenizer, text_weights
from model.backbones.tokenizer_files import byte_pair_tokenizer, published_tokenizer
from model.families.feel.config import FeelModelConfig
from model.runtime.preprocessing import TextTokenizer
from tests.support.tiny_transformers import build_bert, config, roberta, save_byte_pairs

__all__ = ["roberta"]
TEXTS = ["the man, and a red dog.", "a cat", "  the <mask> on the\u00a0road", "ünknown"]


def settings(folder: Path | str, **changes: Any) -> FeelModelConfig:
    values = {"context_length": 16, "dropout": 0.0} | changes
    return FeelModelConfig(text="roberta", text_weights=str(folder), **values)


def test_roberta_equals_transformers_on_padded_texts(roberta: tuple[Any, Path]) -> None:
    model, folder = roberta
    text = build_bert(settings(folder)).eval()
    text.load(folder)
    ids = torch.randint(4, 60, (3, 9), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    mask[1, 5:], mask[2, 2:] = 0, 0
    ids = ids.where(mask > 0, 1)
    with torch.no_grad():
        # transformers derives positions from the padding's id, we from the place in the text.
        expected = model(ids, attention_mask=mask).last_hidden_state
        tokens, pooled = text(ids, mask)
    for row in range(len(ids)):
        real = expected[row, : int(mask[row].sum())]
        torch.testing.assert_close(tokens[row, : len(real)], real, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(pooled[row], real.mean(0), rtol=1e-5, atol=1e-5)


def test_its_first_position_is_that_after_the_padding(roberta: tuple[Any, Path]) -> None:
    chosen = with_text_shape(settings(roberta[1]))
    assert "positions=20" in chosen.text_shape
    assert "eps=1e-05" in chosen.text_shape
    text = build_bert(chosen)
    text.load(roberta[1])
    state = load_file(roberta[1] / "model.safetensors")
    expected = (
        state["embeddings.position_embeddings.weight"][2:] + state["embeddings.token_type_embeddings.weight"]
    )
    assert torch.equal(text.positions.weight.detach(), expected)
    with pytest.raises(
        ValueError, match="context_length=21 exceeds the text encoder's positions: use at mos"
    ):
        build_bert(settings(roberta[1], context_length=21))


def test_it_is_read_out_of_a_model_with_a_head(roberta: tuple[Any, Path], tmp_path: Path) -> None:
    state = load_file(roberta[1] / "model.safetensors")
    wrapped = {f"roberta.{name}": tensor for name, tensor in state.items()}
    save_file(wrapped | {"lm_head.bias": torch.zeros(3)}, tmp_path / "model.safetensors")
    bare, found = build_bert(settings(roberta[1])), build_bert(settings(roberta[1]))
    bare.load(roberta[1])
    found.load(tmp_path)
    for name, tensor in bare.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name


def test_sizes_without_weights_are_those_of_roberta_base() -> None:
    with torch.device("meta"):
        text = build_bert(settings(""))
    # The published 124,645,632 without the pooler and the two rows that no token has.
    assert sum(p.numel() for p in text.parameters()) == 124_645_632 - (768 * 768 + 768) - 3 * 768
    text.freeze()
    assert all(p.requires_grad for p in text.parameters())


def test_a_bert_is_not_taken_for_a_roberta(roberta: tuple[Any, Path]) -> None:
    with pytest.raises(ValueError, match="model_type is 'roberta'; this encoder reads bert"):
        build_bert(config(bert=roberta[1]))
    with pytest.raises(ValueError, match="choose the matching one"):
        build_bert(replace(config(), text_shape="hidden=24,layers=4,heads=4")).load(roberta[1])


def test_vocabulary_and_merges_make_the_tokenizer_of_transformers(
    tmp_path: Path, roberta: tuple[Any, Path]
) -> None:
    transformers = pytest.importorskip("transformers")
    path = text_tokenizer(settings(roberta[1]))
    assert path.name == "tokenizer.json"
    assert not (roberta[1] / path.name).exists()
    assert text_tokenizer(settings(roberta[1])) == path
    theirs = transformers.RobertaTokenizerFast(
        vocab=str(roberta[1] / "vocab.json"),
        merges=str(roberta[1] / "merges.txt"),
        # As in the published tokenizer.json.
        mask_token=transformers.AddedToken("<mask>", lstrip=True),
    )
    theirs.save_pretrained(tmp_path)
    published = published_tokenizer(tmp_path)
    assert published == tmp_path / "tokenizer.json"
    ours, reader = (TextTokenizer.from_file(p, 12) for p in (path, published))
    for text in TEXTS:
        expected = theirs(" ".join(text.split()), truncation=True, max_length=12)["input_ids"]
        assert ours([text]).input_ids[0].tolist() == expected
        assert reader([text]).input_ids[0].tolist() == expected
    batch = ours(TEXTS)
    assert batch.input_ids[:, 0].tolist() == [0] * len(TEXTS)
    assert (batch.input_ids[batch.attention_mask == 0] == 1).all(), "padded with <pad>"
    assert ours.encode("the man <mask> a dog").ids.count(theirs.mask_token_id) == 1


def test_files_that_are_missing_or_damaged_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"no tokenizer.json in .* or add RoBERTa's vocab.json and merges.txt"
    ):
        published_tokenizer(tmp_path)
    save_byte_pairs(tmp_path)
    vocabulary = json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8"))
    del vocabulary["<mask>"]
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    with pytest.raises(ValueError, match=r"vocab.json lacks <mask>: it must hold RoBERTa's vocabulary"):
        published_tokenizer(tmp_path)
    (tmp_path / "vocab.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"vocab.json and merges.txt are no readable BPE"):
        byte_pair_tokenizer(tmp_path / "vocab.json", tmp_path / "merges.txt")


def test_weights_are_found_by_the_settings(roberta: tuple[Any, Path]) -> None:
    assert text_weights(settings(roberta[1])) == roberta[1]
    assert text_weights(settings("")) is None
    with pytest.raises(ValueError, match=r"model.text=roberta needs a tokenizer: set model.text_weights"):
        text_tokenizer(settings(""))
    (source,) = text_sources(settings(roberta[1]))
    assert source["name"] == f"RoBERTa {roberta[1].name}"
    assert text_sources(settings("")) == []
