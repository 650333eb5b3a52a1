"""What of a text a tokenizer understands, and how a text that is too long is divided into parts that fit."""

from __future__ import annotations

import itertools
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from tokenizers import Encoding

from model.runtime.preprocessing import TextTokenizer

# A sentence ends at these marks, after which there is white space, or at those of Chinese and Japanese.
_SENTENCE_END = re.compile(r"(?<=[.!?…;])\s+|(?<=[。！？；])")
# A script is one of the vocabulary's own if so many tokens are written in it, or such a share of all. BERT's
# English vocabulary has the single letters of many scripts (488 Chinese characters are its largest share,
# 1.7 %); a vocabulary of several languages has thousands of tokens of each.
_OWN_SCRIPT_TOKENS = 1000
_OWN_SCRIPT_SHARE = 0.05
# In another script, a word whose tokens have fewer characters than this on average is only spelt.
_SPELT = 2.0


@dataclass(frozen=True)
class TextReading:
    """How a model reads a text.

    Attributes:
        parts: the text in parts that fit the context, in order; one part if the whole text fits.
        num_tokens: the number of tokens of each part, without those that the tokenizer adds.
        unknown: the words that the tokenizer does not know, in order, each once.
        is_understood: whether there is at least one other word.
        left_out: the end of the text that is in no part; empty if the parts hold all of it.
    """

    parts: tuple[str, ...]
    num_tokens: tuple[int, ...]
    unknown: tuple[str, ...]
    is_understood: bool
    left_out: str


@dataclass(frozen=True)
class _Token:
    id: int
    start: int
    end: int


class TextReader:
    """Reads texts with a tokenizer. Thread-safe."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._text_tokenizer = tokenizer
        self._tokenizer = tokenizer.tokenizer
        self._limit = tokenizer.context_length - tokenizer.num_special
        self._added = {i for i, token in self._tokenizer.get_added_tokens_decoder().items() if token.special}

    def read(self, text: str, most_parts: int) -> TextReading:
        """Find what of `text` is understood, and divide it.

        Sentences stay whole where they fit, and as many as fit make one part.

        Args:
            text: as typed; parts, words and what is left out are as `TextTokenizer.normalise` gives them.
            most_parts: at least 1; what follows is left out.
        """
        text = self._text_tokenizer.normalise(text)
        tokens = self._tokens(text)
        unknown = self._unknown(text, tokens)
        known = "".join(
            text[t.start : t.end] for t, is_unknown in zip(tokens, unknown, strict=True) if not is_unknown
        )
        words = dict.fromkeys(_spans(text, tokens, unknown))
        parts = [text] if len(tokens) <= self._limit else self._divide(text)
        kept = tuple(parts[:most_parts])
        return TextReading(
            kept,
            tuple(len(self._tokens(part)) for part in kept) if len(parts) > 1 else (len(tokens),),
            tuple(words),
            any(_is_meaningful(character) for character in known),
            " ".join(parts[most_parts:]),
        )

    def _tokens(self, text: str) -> list[_Token]:
        """All tokens of a text but those that the tokenizer adds, also beyond the context."""
        first = self._text_tokenizer.encode(text)
        return [token for part in (first, *first.overflowing) for token in _own_tokens(part)]

    def _divide(self, text: str) -> list[str]:
        parts: list[str] = []
        used = 0
        for sentence in (piece for piece in _SENTENCE_END.split(text) if piece):
            for piece in self._pieces(sentence):
                count = len(self._tokens(piece))
                if parts and used + count <= self._limit:
                    parts[-1] += f" {piece}"
                    used += count
                else:
                    parts.append(piece)
                    used = count
        return parts

    def _pieces(self, sentence: str) -> list[str]:
        """A sentence, cut between words where it is too long, or inside a word that is."""
        pieces = []
        while len(tokens := self._tokens(sentence)) > self._limit:
            end = tokens[self._limit].start
            end = sentence.rfind(" ", 1, end + 1) if " " in sentence[1 : end + 1] else max(1, end)
            pieces.append(sentence[:end].strip())
            sentence = sentence[end:].strip()
        return [*pieces, sentence]

    def _unknown(self, text: str, tokens: list[_Token]) -> list[bool]:
        """Which tokens say only that something is there: unknown, typed special ones, or a foreign letter."""
        unknown = [token.id in self._meaningless or token.id in self._added for token in tokens]
        if text.isascii():
            return unknown
        for start, end in _words(text):
            if self._script(text[start]) in self._own_scripts:
                continue
            inside = [i for i, token in enumerate(tokens) if start <= token.start < end]
            if end - start < _SPELT * len(inside):
                for i in inside:
                    unknown[i] = True
        return unknown

    @cached_property
    def _meaningless(self) -> frozenset[int]:
        """The ids of unknown words, and of single bytes, into which some tokenizers divide such words."""
        model = json.loads(self._tokenizer.to_str())["model"]
        ids = set()
        if isinstance(model.get("unk_id"), int):
            ids.add(model["unk_id"])
        if isinstance(model.get("unk_token"), str):
            ids.add(self._tokenizer.token_to_id(model["unk_token"]))
        if model.get("byte_fallback"):
            ids.update(self._tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in range(256))
        return frozenset(i for i in ids if i is not None)

    @cached_property
    def _own_scripts(self) -> frozenset[str]:
        counts: Counter[str] = Counter()
        for token in self._tokenizer.get_vocab(with_added_tokens=False):
            letter = next((character for character in token if character.isalpha()), None)
            if letter is not None:
                counts[self._script(letter)] += 1
        total = counts.total()
        return frozenset(
            script
            for script, count in counts.items()
            if count >= _OWN_SCRIPT_TOKENS or count >= _OWN_SCRIPT_SHARE * total
        )

    @staticmethod
    def _script(letter: str) -> str:
        """The first word of a letter's Unicode name, such as LATIN or CYRILLIC."""
        return unicodedata.name(letter, "").partition(" ")[0]


def _own_tokens(encoding: Encoding) -> list[_Token]:
    columns = zip(
        encoding.ids, encoding.offsets, encoding.special_tokens_mask, encoding.attention_mask, strict=True
    )
    return [_Token(i, *offsets) for i, offsets, is_special, is_real in columns if is_real and not is_special]


def _spans(text: str, tokens: list[_Token], wanted: list[bool]) -> list[str]:
    """The text under the wanted tokens; tokens that touch make one span."""
    spans: list[tuple[int, int]] = []
    for token, is_wanted in zip(tokens, wanted, strict=True):
        if is_wanted and spans and token.start <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(token.end, spans[-1][1]))
        elif is_wanted:
            spans.append((token.start, token.end))
    return [span for start, end in spans if (span := text[start:end].strip())]


def _words(text: str) -> Iterator[tuple[int, int]]:
    """Where each run of letters, with the marks on them, starts and ends."""
    for is_letter, group in itertools.groupby(
        range(len(text)), lambda i: text[i].isalpha() or unicodedata.category(text[i])[0] == "M"
    ):
        if is_letter:
            places = list(group)
            yield places[0], places[-1] + 1


def _is_meaningful(character: str) -> bool:
    """Whether it is more than white space or a punctuation mark: a letter, a digit, an emoji."""
    return unicodedata.category(character)[0] not in "PZC"
