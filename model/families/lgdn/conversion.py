"""FEEL's global modality reconstruction (GMR) and cross-modal self-contrasting (CS) in LGDN.

FEEL's paper has them in its own network. Decided here, for LGDN:

- e_v are the embeddings of a video's real frames, all of them and not the salient ones: FEEL too converts the
  whole video, although the text tells only a part of it.
- e_t are the text's tokens in the joint space: its embedding in place of [CLS], then its words.
- Both have unit length and are scaled by √D, so that their entries are about one, as layers expect. The mean
  squared error of FEEL, eq. 7, is then the squared distance of unit vectors, and the margin of eq. 12 is a
  margin between such distances. The lengths are fixed, so that no loss falls by shrinking the embeddings.
- A converter of its own, which only training uses, reads both. It changes search through the gradient that
  it passes on to the towers.

Shapes: B videos, N frame slots, L text tokens, D joint space.
"""

from __future__ import annotations

from torch import Tensor

from model.families.feel.conversion import Converter, ConverterShape
from model.families.feel.objective import ConversionLosses
from model.families.lgdn.config import ModelConfig

_HEAD_WIDTH = 32
# The width of the feed-forward networks, in widths of the joint space, as in BERT.
_WIDENING = 4


def build_converter(config: ModelConfig) -> Converter | None:
    """The converter that the settings name, with random weights; None: they name none."""
    if not config.converter_layers:
        return None
    most = max(1, config.dim // _HEAD_WIDTH)
    shape = ConverterShape(
        hidden=config.dim,
        heads=next(heads for heads in range(most, 0, -1) if config.dim % heads == 0),
        intermediate=_WIDENING * config.dim,
        positions=max(config.frames, config.context_length),
        cross_layers=config.converter_layers,
        mcb_layers=config.converter_layers,
        target_masked=config.converter_target_masked,
        dropout=config.dropout,
        gradient_checkpointing=config.gradient_checkpointing,
    )
    return Converter(shape)


def conversion_losses(
    losses: ConversionLosses,
    converter: Converter,
    frames: Tensor,
    words: Tensor,
    frame_mask: Tensor,
    attention_mask: Tensor,
) -> dict[str, Tensor]:
    """GMR and CS of frames and words of unit length (FEEL, eq. 7–9 and 12, 15, 16).

    Shapes frames [B, N, D], words [B, L, D], frame_mask [B, N], attention_mask [B, L].

    Returns:
        Scalars, those of `ConversionLosses`.
    """
    scale = frames.shape[-1] ** 0.5
    return losses(converter, frames * scale, words * scale, frame_mask, attention_mask)
