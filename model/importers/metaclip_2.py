"""MetaCLIP 2 (Chuang et al., 2025), which reads many languages: `MetaClip2Model`."""

from __future__ import annotations

from model.importers.base import Checkpoint, Imported
from model.importers.dual_encoders import import_dual_encoder, read_dual_encoder
from model.importers.weights import load_model


def load(checkpoint: Checkpoint) -> Imported:
    """Read a MetaCLIP 2.

    Raises:
        InputError: a file is missing, damaged, or does not fit the others.
    """
    from transformers import MetaClip2Model

    model = load_model(checkpoint, MetaClip2Model)
    return import_dual_encoder(checkpoint, read_dual_encoder(checkpoint, model, languages=("mul",)))
