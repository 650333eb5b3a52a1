"""Texts that nothing can show, to measure with: a search for one should say that nothing was found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_LATIN = "abcdefghijklmnopqrstuvwxyz"
#: First and last character of alphabets or syllables, from Russian to Korean.
_SCRIPTS = (("а", "я"), ("α", "ω"), ("一", "龥"), ("ا", "ي"), ("अ", "ह"), ("가", "힣"))
_MOST_WORDS, _MOST_LETTERS, _LEAST_LETTERS = 6, 8, 2


def nonsense_texts(captions: Sequence[str], count: int, seed: int = 0) -> dict[str, tuple[str, ...]]:
    """Nonsense of three kinds, `count` texts of each; the same seed gives the same texts.

    "letters" are words of random Latin letters, and "scripts" of random letters of another script. "words"
    are words of several captions at random: each of them is known, and the text says nothing.

    Raises:
        ValueError: the captions hold no word.
    """
    rng = np.random.default_rng((seed, 12))
    vocabulary = " ".join(captions).lower().split()
    if not vocabulary:
        raise ValueError("the captions hold no word: pass some")
    alphabets = ["".join(map(chr, range(ord(first), ord(last) + 1))) for first, last in _SCRIPTS]
    return {
        "letters": tuple(_letters(rng, _LATIN) for _ in range(count)),
        "words": tuple(
            " ".join(vocabulary[i] for i in rng.integers(0, len(vocabulary), rng.integers(2, 10)))
            for _ in range(count)
        ),
        "scripts": tuple(_letters(rng, alphabets[row % len(alphabets)]) for row in range(count)),
    }


def _letters(rng: np.random.Generator, alphabet: str) -> str:
    lengths = rng.integers(_LEAST_LETTERS, _MOST_LETTERS + 1, rng.integers(1, _MOST_WORDS + 1))
    return " ".join("".join(alphabet[i] for i in rng.integers(0, len(alphabet), n)) for n in lengths)
