"""The loss of the moment head. Shapes: B pairs of a query and a film, T frames."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def moment_losses(
    start_logit: Tensor,
    end_logit: Tensor,
    rejection_logit: Tensor,
    start: Tensor,
    end: Tensor,
    mask: Tensor,
    *,
    rejection_weight: float = 1.0,
    film_weight: float = 0.5,
) -> dict[str, Tensor]:
    """Cross-entropy of the first and the last frame, and binary cross-entropy of what is part of no answer.

    `span` is the mean over the answered queries, as in HERO; 0 where there is none. `rejection` is the mean
    over the frames of a film, then over the films. `film` asks the same of a whole film, by its least
    rejected frame.

    Args:
        start_logit: [B, T], as `end_logit` and `rejection_logit`.
        end_logit: of the last frame.
        rejection_logit: of frames that are part of no answer.
        start: the first frame of the answer, int64 [B]; −1 where there is none.
        end: its last frame, int64 [B]; −1 where there is none.
        mask: 1 for real frames, [B, T].
        rejection_weight: weight of `rejection`.
        film_weight: weight of `film`.

    Returns:
        scalars `total`, `span`, `rejection` and `film`.
    """
    answered = (start >= 0).to(start_logit.dtype)
    by_row = F.cross_entropy(start_logit, start.clamp_min(0), reduction="none")
    by_row = by_row + F.cross_entropy(end_logit, end.clamp_min(0), reduction="none")
    span = (by_row * answered).sum() / answered.sum().clamp_min(1.0)
    place = torch.arange(mask.shape[1], device=mask.device)
    inside = (place >= start[:, None]) & (place <= end[:, None])
    outside = 1.0 - inside.to(rejection_logit.dtype)
    by_frame = F.binary_cross_entropy_with_logits(rejection_logit, outside, reduction="none")
    rejection = ((by_frame * mask).sum(1) / mask.sum(1)).mean()
    film = F.binary_cross_entropy_with_logits(rejection_logit.amin(1), 1.0 - answered)
    total = span + rejection_weight * rejection + film_weight * film
    return {"total": total, "span": span, "rejection": rejection, "film": film}
