"""CLIP (Radford et al., 2021), as OpenAI, LAION, DFN and others publish it: `CLIPModel`."""

from __future__ import annotations

from model.importers.base import Checkpoint, Imported
from model.importers.dual_encoders import import_dual_encoder, read_dual_encoder
from model.importers.weights import load_model


def load(checkpoint: Checkpoint) -> Imported:
    """Read a CLIP.

    Raises:
        InputError: a file is missing, damaged, or does not fit the others.
    """
    from transformers import CLIPModel

    return import_dual_encoder(checkpoint, read_dual_encoder(checkpoint, load_model(checkpoint, CLIPModel)))
