"""Settings and a tokenizer with which FEEL trains on the sets of `feature_sets` in a second or two."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from model.config import Config, config_from_mapping
from tests.support.feature_sets import TOPICS, TinySet

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["ann", "sees", "look", "the", "a", "is", "seen", "video", "caption", ".", ",", ":", "!", *TOPICS]
#: dropout is on, so that resuming must restore what is random
SIZES: dict[str, Any] = {
    "text": "tiny",
    "text_weights": "",
    "feature_dim": 0,
    "hidden": 16,
    "heads": 2,
    "intermediate": 24,
    "cross_layers": 1,
    "cross_from_text": False,
    "mcb_layers": 1,
    "frames": 40,
    "context_length": 24,
    "dropout": 0.1,
}
TRAIN: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 4,
    "accumulate": 1,
    "lr_text": 3e-3,
    "lr_head": 3e-3,
    "beta2": 0.98,
    "clip": 1.0,
    "precision": "float32",
    "threads": 1,
    "log_every": 1,
    "tensorboard": False,
    "evaluate": False,
}


def make_mask_tokenizer(path: Path, more: Sequence[str] = ()) -> Path:
    """A word-level tokenizer with BERT's special tokens, the words of the tiny sets, and `more` words."""
    words = [*SPECIAL, *WORDS, *more]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, "[UNK]"))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    return path


def feel_run(
    tiny: TinySet,
    kind: str,
    output: Path,
    *,
    data: dict[str, Any] | None = None,
    loss: dict[str, Any] | None = None,
    **train: Any,
) -> Config:
    """Settings of a run on a tiny set; `train` are other values of the group `train`."""
    settings = tiny.settings(kind, max_vectors=40, workers=0, **data or {})
    return config_from_mapping(
        {
            "family": "feel",
            "name": "tiny_feel",
            "output": str(output),
            "model": SIZES,
            "data": settings,
            "loss": loss or {},
            "train": TRAIN | train,
        }
    )


def as_overrides(group: str, settings: dict[str, Any]) -> list[str]:
    """Settings as the command line takes them."""
    listed = {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}
    return [f"{group}.{name}={json.dumps(value)}" for name, value in listed.items()]
