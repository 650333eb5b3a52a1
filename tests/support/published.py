"""Tiny random checkpoints of transformers' own classes, saved as they are published, by family.

Each family has its kind of tokenizer and image processor.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram

from tests.support.tiny_transformers import stir

SIDE, DIM, LENGTH = 32, 16, 20
VISION: dict[str, Any] = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": SIDE,
    "patch_size": 8,
}
TEXT: dict[str, Any] = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": LENGTH,
}
#: texts as people type them, and as they do not
TEXTS = (
    "a dog runs along the beach",
    "A DOG, on the Beach!",
    "früher 映画 мир",
    "👩‍👧 and a café",
    "word " * 5000,
    "x",
)
#: how far weights are stirred
SHARE = 0.1
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def save_clip(folder: Path, *, patch: int = VISION["patch_size"], **sizes: int) -> Path:
    """CLIP: byte-level BPE with ends of words, and a square cut out of a scaled picture.

    Args:
        folder: becomes the checkpoint.
        patch: side of a patch.
        sizes: other sizes of both encoders.
    """
    import transformers
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    vocabulary = clip_pieces(folder)
    ids = {"bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1, "pad_token_id": vocabulary - 1}
    config = transformers.CLIPConfig(
        text_config={**TEXT, **sizes, "vocab_size": vocabulary, **ids},
        vision_config={**VISION, **sizes, "patch_size": patch},
        projection_dim=DIM,
    )
    stir(transformers.CLIPModel(config), SHARE).save_pretrained(folder)
    pieces = {"vocab": str(folder / "vocab.json"), "merges": str(folder / "merges.txt")}
    transformers.CLIPTokenizer(**pieces, model_max_length=LENGTH).save_pretrained(folder)
    size, crop = {"shortest_edge": SIDE + 4}, {"height": SIDE, "width": SIDE}
    CLIPImageProcessorPil(size=size, crop_size=crop).save_pretrained(folder)
    return folder


def save_metaclip_2(folder: Path) -> Path:
    """MetaCLIP 2: a unigram vocabulary of several scripts, and CLIP's image processor."""
    import transformers
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", *_LETTERS, *"映画мир", "▁a", "▁the", "▁dog"]
    scored = [(piece, -float(i)) for i, piece in enumerate(pieces)]
    tokenizer = transformers.XLMRobertaTokenizer(vocab=scored, model_max_length=LENGTH)
    config = transformers.MetaClip2Config(
        text_config={**TEXT, "vocab_size": len(tokenizer), "eos_token_id": 2},
        vision_config=VISION,
        projection_dim=DIM,
    )
    stir(transformers.MetaClip2Model(config), SHARE).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    ).save_pretrained(folder)
    return folder


def save_siglip(folder: Path) -> Path:
    """SigLIP: a unigram vocabulary without capitals and punctuation, and squashed pictures."""
    import transformers

    _save_siglip_model(folder, vocabulary=64)
    pieces = ["<unk>", "</s>", "▁", *_LETTERS, "▁a", "▁the", "▁dog"]
    tokenizer = Tokenizer(Unigram([(piece, -float(i)) for i, piece in enumerate(pieces)], unk_id=0))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(",", ""), normalizers.Replace("!", "")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    published: Any = transformers.PreTrainedTokenizerFast
    published(
        tokenizer_object=tokenizer,
        eos_token="</s>",
        pad_token="</s>",
        unk_token="<unk>",
        model_max_length=LENGTH,
    ).save_pretrained(folder)
    return folder


def save_siglip2(folder: Path, tokenizer: str = "Siglip2Tokenizer") -> Path:
    """SigLIP 2: Gemma's tokenizer with small letters; or `GemmaTokenizer`, which keeps capitals."""
    import transformers

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    pieces = [*special, "▁", *_LETTERS, *(f"<0x{byte:02X}>" for byte in range(256)), "do", "dog"]
    _save_siglip_model(folder, vocabulary=len(pieces) + 5)
    merges: Any = [("d", "o"), ("do", "g")]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    kind = getattr(transformers, tokenizer)
    kind(vocab=vocab, merges=merges, model_max_length=LENGTH).save_pretrained(folder)
    return folder


def save_blip(folder: Path, **text: Any) -> Path:
    """BLIP for image-text matching: BERT's tokenizer, and squashed pictures; `text` changes the encoder."""
    import transformers
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    sizes = {**TEXT, "num_attention_heads": 12, "max_position_embeddings": 64, "vocab_size": 30524}
    config = transformers.BlipConfig(
        text_config={**sizes, **text}, vision_config=VISION, image_text_hidden_size=DIM
    )
    stir(transformers.BlipForImageTextRetrieval(config), SHARE).save_pretrained(folder)
    BlipImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    vocabulary = folder.with_name(f"{folder.name}.txt")
    vocabulary.write_text("\n".join(_bert_pieces()) + "\n", encoding="utf-8")
    transformers.BertTokenizer(str(vocabulary)).save_pretrained(folder)
    return folder


def _bert_pieces() -> list[str]:
    """A vocabulary in which the special tokens have the places of BERT's own."""
    special = ["[PAD]", *(f"[unused{i}]" for i in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [*_LETTERS, *(f"##{letter}" for letter in _LETTERS), *"映画мир.,!?'-&"]
    return [*special, *letters, "dog", "runs", "along", "the", "beach"]


def _save_siglip_model(folder: Path, vocabulary: int) -> None:
    import transformers
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    text = {**TEXT, "vocab_size": vocabulary, "projection_size": 24, "pad_token_id": 1}
    config = transformers.SiglipConfig(text_config=text, vision_config=VISION)
    stir(transformers.SiglipModel(config), SHARE).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)


def clip_pieces(folder: Path) -> int:
    """Write CLIP's two files of a vocabulary, and return its size."""
    merges = ["d o", "do g</w>", "t h", "th e</w>"]
    letters = [*_LETTERS, *(f"{letter}</w>" for letter in _LETTERS), *"ÃĤ¼©"]
    pieces = [*letters, *(merge.replace(" ", "") for merge in merges), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    return len(pieces)


#: How a tiny checkpoint of each family is saved.
PUBLISHED: Mapping[str, Callable[[Path], Path]] = {
    "clip": save_clip,
    "metaclip_2": save_metaclip_2,
    "siglip": save_siglip,
    "siglip2": save_siglip2,
}
