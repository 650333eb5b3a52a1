"""Tiny random CLIP and BLIP, saved by transformers with their tokenizers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from tests.support.tiny_transformers import stir

WORDS = ["a", "clip", "for", "the", "first", "second", "time", *map(str, range(10)), "red", "blue", "white"]
SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
IMAGE: dict[str, Any] = SIZES | {"image_size": 32, "patch_size": 16}
CONTEXT = 20
DIM = 12
#: ids of BLIP's [CLS] and [ENC]
CLS, ENC = 2, 4 + len(WORDS)


def save_clip(folder: Path, *, activation: str = "quick_gelu", end: int | None = 2, **image: Any) -> Any:
    """A `CLIPModel`; `end` is the end token that its configuration states, None: the true one."""
    import transformers

    pieces = ["[PAD]", "[UNK]", *WORDS, "<start>", "<end>"]
    first, last = len(pieces) - 2, len(pieces) - 1
    save_tokenizer(folder, pieces, "<start>", "<end>")
    text = SIZES | {"vocab_size": len(pieces), "max_position_embeddings": CONTEXT, "hidden_act": activation}
    text |= {"bos_token_id": first, "eos_token_id": last if end is None else end, "pad_token_id": 0}
    config = transformers.CLIPConfig(
        text_config=text, vision_config=IMAGE | {"hidden_act": activation} | image, projection_dim=DIM
    )
    model = stir(transformers.CLIPModel(config))
    model.save_pretrained(folder)
    return model


def save_blip(folder: Path) -> Any:
    """A `BlipForImageTextRetrieval`; its last id is [ENC]."""
    import transformers

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, "[ENC]"]
    save_tokenizer(folder, pieces, "[CLS]", "[SEP]")
    text = SIZES | {"vocab_size": len(pieces), "max_position_embeddings": CONTEXT}
    text |= {"bos_token_id": CLS, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    config = transformers.BlipConfig(
        text_config=text, vision_config=IMAGE | {"hidden_size": 24}, image_text_hidden_size=DIM
    )
    model = stir(transformers.BlipForImageTextRetrieval(config))
    model.save_pretrained(folder)
    return model


def save_tokenizer(folder: Path, pieces: list[str], first: str, last: str) -> None:
    """Words in lower case between two tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", special_tokens=[(first, ids[first]), (last, ids[last])]
    )
    tokenizer.save(str(folder / "tokenizer.json"))


def clip_pixels(frames: torch.Tensor) -> torch.Tensor:
    """Frames as CLIP and BLIP read them. Shape uint8 [F, h, w, 3] → [F, 3, h, w]."""
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    return ((frames / 255.0 - mean) / std).permute(0, 3, 1, 2)
