"""What a tokenizer understands of a text, and how a long text is divided."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from model.runtime.bundle import default_bundle_path
from model.runtime.preprocessing import TextTokenizer, normalise_text
from model.runtime.text_reading import TextReader

MINI = TextReader(TextTokenizer.from_file(default_bundle_path() / "tokenizer.json", 64))
SHORT = TextReader(TextTokenizer.from_file(default_bundle_path() / "tokenizer.json", 12))
BASE = "a person talks about many things in a room with chairs and tables "


def reader_of(model: models.Model, context_length: int = 16) -> TextReader:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return TextReader(TextTokenizer(tokenizer, context_length))


@pytest.mark.parametrize(
    "text",
    [
        *("[UNK]", "[SEP]", "x" * 200, "?!", "… — !", "🐱", "猫 🐱 кот"),
        *("猫", "日本人", "ねこ", "고양이", "кот", "два кота", "γάτα", "قطة", "חתול", "कुत्ता", "แมว"),
    ],
)
def test_nothing_is_understood(text: str) -> None:
    assert not MINI.read(text, 8).is_understood


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("a dog runs", ()),
        ("naïve café", ()),
        ("e\u0301te\u0301", ()),
        ("ein schöner Tag für Fußball", ()),
        ("skateboardzzz 4k, 3:1 & $5!", ()),
        ("a cat 🐱 and a 犬", ("🐱", "犬")),
        ("кот and кот and собака", ("кот", "собака")),
        ("a猫", ("猫",)),
        (f"red {'y' * 300}", ("y" * 300,)),
    ],
)
def test_unknown_words_are_named(text: str, unknown: tuple[str, ...]) -> None:
    reading = MINI.read(text, 8)
    assert reading.is_understood
    assert reading.unknown == unknown
    assert (reading.parts, reading.left_out) == ((normalise_text(text),), "")


def test_a_vocabulary_of_single_characters_is_understood_in_its_own_script() -> None:
    """As that of a Chinese BERT: each character is a token, and a word is not spelt but written."""
    vocabulary = {c: i for i, c in enumerate(["[UNK]", *(chr(0x4E00 + i) for i in range(3000)), "a", "b"])}
    reader = reader_of(models.BPE(vocabulary, [], unk_token="[UNK]"))
    assert reader.read("一丁七", 8).unknown == ()
    assert reader.read("一丁鿿", 8).unknown == ("鿿",)


def test_bytes_of_an_unknown_word_are_not_understood() -> None:
    tokens = [("<unk>", 0.0), *((f"<0x{byte:02X}>", 0.0) for byte in range(256)), ("red", -1.0)]
    tokenizer = Tokenizer(models.Unigram(tokens, 0, byte_fallback=True))
    tokenizer.decoder = decoders.ByteFallback()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    reader = TextReader(TextTokenizer(tokenizer, 16))
    assert not reader.read("猫", 8).is_understood
    assert reader.read("red 猫", 8).unknown == ("猫",)


def test_sentences_stay_whole_and_fill_the_parts() -> None:
    reading = MINI.read("One dog runs. " * 40, 8)  # 4 tokens each, and 62 fit
    assert reading.num_tokens == (60, 60, 40)
    assert " ".join(reading.parts) == ("One dog runs. " * 40).strip()
    assert MINI.read("One dog runs. " * 40, 2).left_out == ("One dog runs. " * 10).strip()


def test_a_long_sentence_is_cut_between_words() -> None:
    text = BASE * 6 + "and then a blue wall"
    reading = MINI.read(text, 8)
    assert len(reading.parts) == 2
    assert " ".join(reading.parts) == normalise_text(text)
    assert max(reading.num_tokens) <= 62


def test_a_text_without_spaces_is_cut_inside() -> None:
    reading = MINI.read("猫" * 300, 8)
    assert "".join(reading.parts) == "猫" * 300
    assert reading.num_tokens == (62, 62, 62, 62, 52)


@settings(deadline=None)
@given(st.text(max_size=400), st.integers(1, 4))
def test_nothing_is_lost_and_all_parts_fit(text: str, most_parts: int) -> None:
    reading = SHORT.read(text, most_parts)
    assert 1 <= len(reading.parts) <= most_parts
    assert max(reading.num_tokens) <= 10
    together = " ".join([*reading.parts, reading.left_out])
    assert re.sub(r"\s", "", together) == re.sub(r"\s", "", normalise_text(text))


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=1000), st.integers(1, 4))
def test_the_models_own_tokenizer_reads_any_text(text: str, most_parts: int) -> None:
    reading = MINI.read(text, most_parts)
    assert max(reading.num_tokens) <= 62
    together = " ".join([*reading.parts, reading.left_out])
    assert re.sub(r"\s", "", together) == re.sub(r"\s", "", normalise_text(text))
