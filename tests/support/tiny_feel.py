"""A tiny FEEL without dropout, a tokenizer with BERT's special tokens, and ragged batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn

from model.arrays import Array
from model.families.feel.batch import FeelBatch, Queries, collate_features
from model.families.feel.config import FeelModelConfig
from model.families.feel.network import Feel
from model.runtime.preprocessing import TextTokenizer

WIDTH, HIDDEN, FRAMES, TOKENS = 6, 16, 7, 10
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [
    "a",
    "man",
    "woman",
    "cooks",
    "rice",
    "in",
    "the",
    "kitchen",
    "dog",
    "runs",
    "along",
    "beach",
    "plays",
]
WORDS += ["guitar", "and", "sings", "red", "car"]
M = TypeVar("M", bound=nn.Module)


def tiny_config(**changes: Any) -> FeelModelConfig:
    """Sizes that train in milliseconds; no dropout, so that every path can be compared."""
    values: dict[str, Any] = {
        "text": "tiny",
        "feature_dim": WIDTH,
        "hidden": HIDDEN,
        "heads": 2,
        "intermediate": 24,
        "cross_layers": 2,
        "mcb_layers": 1,
        "frames": FRAMES,
        "context_length": TOKENS,
        "dropout": 0.0,
    }
    return FeelModelConfig(**values | changes)


def stir(module: M, share: float = 0.2) -> M:
    """Random values everywhere: a bias or a norm that is left at its start would hide a mistake."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * share)
    return module


def tiny_feel(**changes: Any) -> Feel:
    torch.manual_seed(0)
    return stir(Feel(tiny_config(**changes)))


def tiny_tokenizer(context_length: int = TOKENS, words: Sequence[str] = WORDS) -> TextTokenizer:
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate([*SPECIAL, *words])}, "[UNK]"))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return TextTokenizer(tokenizer, context_length)


def named(name: str) -> Callable[[str], str]:
    """Puts a name before the message of `torch.testing.assert_close`."""
    return lambda message: f"{name}: {message}"


def random(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def features(lengths: list[int], seed: int = 0) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(length, WIDTH)).astype(np.float32) for length in lengths]


TEXTS = ["a man cooks rice in the kitchen", "", "a dog runs", "the woman plays guitar and sings"]
LENGTHS = [5, 3, 7, 1]
QUERIES = Queries(
    ["man cooks", "a dog", "dog runs along the beach", "rice", "sings"],
    [0, 2, 2, 0, 3],
    [(0, 2), (3, 6), (-1, -1), (4, 4), (0, 0)],
)


def tiny_batch(seed: int = 0, video_ids: list[int] | None = None, queries: Queries = QUERIES) -> FeelBatch:
    """Four videos of other lengths, of which one has no text, and five queries."""
    return collate_features(
        features(LENGTHS, seed), TEXTS, tiny_tokenizer(), longest=FRAMES, queries=queries, video_ids=video_ids
    )
