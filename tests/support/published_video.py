"""Tiny random checkpoints of models that read whole segments, saved as they are published, by family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.support.published import DIM, LENGTH, SHARE, TEXT, VISION, clip_pieces
from tests.support.tiny_transformers import stir

#: how many frames of how many pixels a side they read
X_CLIP_FRAMES, VIDEO_PRISM_FRAMES, VIDEO_PRISM_SIDE = 4, 5, 36


def save_x_clip(folder: Path) -> Path:
    """X-CLIP: CLIP's tokenizer, and VideoMAE's processor of frames."""
    import transformers
    from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil

    vocabulary = clip_pieces(folder)
    ids = {"bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1, "pad_token_id": vocabulary - 1}
    joint = {"mit_hidden_size": DIM, "mit_intermediate_size": 24, "mit_num_attention_heads": 2}
    config = transformers.XCLIPConfig(
        text_config={**TEXT, "vocab_size": vocabulary, **ids},
        vision_config={**VISION, **joint, "num_frames": X_CLIP_FRAMES},
        projection_dim=DIM,
        prompt_num_attention_heads=2,
    )
    stir(transformers.XCLIPModel(config), SHARE).save_pretrained(folder)
    pieces = {"vocab": str(folder / "vocab.json"), "merges": str(folder / "merges.txt")}
    transformers.CLIPTokenizer(**pieces, model_max_length=LENGTH).save_pretrained(folder)
    side = VISION["image_size"]
    size, crop = {"shortest_edge": side + 4}, {"height": side, "width": side}
    VideoMAEImageProcessorPil(size=size, crop_size=crop).save_pretrained(folder)
    return folder


def save_video_prism(folder: Path) -> Path:
    """VideoPrism-LvT: a unigram vocabulary without an end of texts, and squashed frames as they are."""
    import transformers
    from transformers.models.llava_onevision.video_processing_llava_onevision import (
        LlavaOnevisionVideoProcessor,
    )

    pieces = ["<pad>", "</s>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz", "▁a", "▁the", "▁dog"]
    tokenizer = transformers.VideoPrismTokenizer(
        vocab=[(piece, -float(i)) for i, piece in enumerate(pieces)], extra_ids=0, model_max_length=LENGTH
    )
    sizes: dict[str, Any] = {"hidden_size": 24, "intermediate_size": 40, "num_attention_heads": 4}
    layers = dict.fromkeys(("num_spatial_layers", "num_temporal_layers", "num_auxiliary_layers"), 1)
    vision = {"image_size": VIDEO_PRISM_SIDE, "num_frames": VIDEO_PRISM_FRAMES}
    config = transformers.VideoPrismConfig(
        vision_config={**sizes, **layers, **vision},
        text_config={
            **sizes,
            "num_hidden_layers": 1,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": LENGTH,
        },
    )
    stir(transformers.VideoPrismClipModel(config), SHARE).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    square = {"height": VIDEO_PRISM_SIDE, "width": VIDEO_PRISM_SIDE}
    processors: Any = LlavaOnevisionVideoProcessor
    processors(size=square, do_normalize=False).save_pretrained(folder)
    return folder


#: How a tiny checkpoint of each family is saved.
PUBLISHED_VIDEO: Mapping[str, Callable[[Path], Path]] = {
    "videoprism": save_video_prism,
    "xclip": save_x_clip,
}
