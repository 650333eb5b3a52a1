"""SigLIP (Zhai et al., 2023) and SigLIP 2 (Tschannen et al., 2025) of one resolution: `SiglipModel`.

Both were trained on texts in small letters, filled up to the context length, without an attention mask.
SigLIP 2 is often published with Gemma's tokenizer, which keeps capitals: the bundle's reads small letters.
"""

from __future__ import annotations

from dataclasses import replace

from tokenizers import normalizers

from model.importers.base import Checkpoint, Imported
from model.importers.dual_encoders import import_dual_encoder, read_dual_encoder
from model.importers.weights import load_model
from model.runtime.errors import InputError

#: ids of the vocabularies of SigLIP 2 (Gemma's) and of SigLIP for many languages (mT5's), or more
_MULTILINGUAL = 200_000


def load(checkpoint: Checkpoint) -> Imported:
    """Read a SigLIP or a SigLIP 2.

    Raises:
        InputError: a file is missing, damaged, or does not fit the others.
    """
    from transformers import SiglipModel

    model = load_model(checkpoint, SiglipModel)
    many = int(model.config.text_config.vocab_size) >= _MULTILINGUAL
    languages = ("mul",) if many else ("en",)
    encoder = read_dual_encoder(checkpoint, model, fixed_length=True, languages=languages)
    return import_dual_encoder(
        checkpoint, replace(encoder, tokenizer=encoder.tokenizer.preparing(normalizers.Lowercase()))
    )


def refuse_naflex(checkpoint: Checkpoint) -> Imported:
    """Refuse SigLIP 2 NaFlex, which reads pictures of any shape.

    Raises:
        InputError: always.
    """
    raise InputError(
        f"{checkpoint.source.name} is SigLIP 2 NaFlex, which reads pictures of any shape; a bundle reads "
        "squares: import a SigLIP 2 of one resolution, such as google/siglip2-base-patch16-224"
    )
