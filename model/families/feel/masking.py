"""Which tokens and frames are masked, and what stands in their place.

Draws are made on the CPU with the generator that is passed, so that they are the same on every device.
Shapes: B texts or videos, L tokens, M feature vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# BERT's shares of the chosen tokens: the first become [MASK], the next a random token, the rest stay.
_MASKED, _RANDOM = 0.8, 0.1


@dataclass(frozen=True)
class MaskedTokens:
    """Shapes input_ids int64 [B, L], as the model sees them; chosen bool [B, L], the tokens to predict."""

    input_ids: Tensor
    chosen: Tensor


def mask_tokens(
    input_ids: Tensor,
    maskable: Tensor,
    mask_id: int,
    vocabulary: int,
    share: float,
    generator: torch.Generator,
) -> MaskedTokens:
    """Mask tokens as BERT does (FEEL, above eq. 4).

    Of the chosen tokens 80 % become the mask, 10 % a random token, and 10 % stay. Of every text with a
    maskable token at least one is chosen, as in HERO.

    Args:
        input_ids: int64 [B, L].
        maskable: bool [B, L]: neither padding nor special.
        mask_id: the id of the mask.
        vocabulary: random tokens have ids below it.
        share: the probability that a token is chosen.
        generator: on the CPU.
    """
    chosen = _choose(maskable, share, generator)
    kind = torch.rand(input_ids.shape, generator=generator).to(input_ids.device)
    other = torch.randint(vocabulary, input_ids.shape, generator=generator).to(input_ids.device)
    seen = input_ids.masked_fill(chosen & (kind < _MASKED), mask_id)
    seen = torch.where(chosen & (kind >= _MASKED) & (kind < _MASKED + _RANDOM), other, seen)
    return MaskedTokens(seen, chosen)


def mask_frames(real: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Choose the feature vectors to mask, at least one of every video that has any.

    Shape bool [B, M], real vectors → bool [B, M].
    """
    return _choose(real, share, generator)


def _choose(allowed: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Each allowed place with probability `share`, and the one with the lowest draw in any case."""
    draw = torch.rand(allowed.shape, generator=generator).to(allowed.device).masked_fill(~allowed, 2.0)
    lowest = draw.argmin(1, keepdim=True)
    return (draw < share).scatter(1, lowest, True) & allowed
