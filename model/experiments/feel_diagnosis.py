"""How well a pre-trained FEEL converts modalities, on films that it has not seen.

Shapes: V films with text, d width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from model.data.feature_sets import FeatureSource
from model.families.feel import losses as equations
from model.families.feel.batch import FeelBatch, collate_features
from model.families.feel.config import FeelLossConfig
from model.families.feel.losses import Sequences
from model.families.feel.network import Feel
from model.runtime.preprocessing import TextTokenizer

#: what a diagnosis gives for each modality
DIAGNOSED = ("constant", "once", "alone", "twice", "active", "told")
# Films that are converted at once, and targets among which the right one must be.
_FILMS, _NEAREST = 32, 10


def diagnose(
    model: Feel, tokenizer: TextTokenizer, source: FeatureSource, loss: FeelLossConfig
) -> dict[str, dict[str, float]]:
    """Measure what GMR and CS have taught.

    Errors are mean squared distances between the pooled target, m(e_v) or m(e_t), and what is converted.

    Args:
        model: pre-trained; it is put into evaluation mode.
        tokenizer: the model's own.
        source: at least two films with text.
        loss: the margin and the distance of CS.

    Returns:
        for `v` and `t`, the modality that is reconstructed:
        `constant`: the error of the mean of all targets, which is their variance;
        `once`: the error of what GMR trains (FEEL, eq. 7 and 8);
        `alone`: the same, where the source could not attend to the target;
        `twice`: the error of what is converted twice (eq. 12 and 15);
        `active`: the share of films with a hinge of CS above 0;
        `told`: the share of films whose target is among the ten nearest to what is converted as in `alone`,
        by the cosine once the mean over the films is taken off.
    """
    model.eval()
    parts: list[dict[str, Tensor]] = []
    for first in range(0, len(source), _FILMS):
        items = [source.item(row) for row in range(first, min(first + _FILMS, len(source)))]
        batch = collate_features(
            [item.features for item in items],
            [item.text for item in items],
            tokenizer,
            longest=model.config.frames,
        )
        parts.append(_measure(model, batch.to(next(model.parameters()).device), loss))
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    found: dict[str, dict[str, float]] = {}
    for modality in ("v", "t"):
        target = joined.pop(f"{modality}_target")
        values = {"constant": (target - target.mean(0)).square()}
        values |= {name: joined[f"{modality}_{name}"] for name in ("once", "alone", "twice", "active")}
        values["told"] = _told(joined[f"{modality}_vector"], target)
        found[modality] = {name: float(value.float().mean()) for name, value in values.items()}
    return found


def _told(converted: Tensor, target: Tensor) -> Tensor:
    """Whether each film's own target is among the nearest. Shapes [V, d] twice → bool [V]."""
    one, other = (F.normalize(x - x.mean(0), dim=-1) for x in (converted, target))
    cosines = one @ other.T
    return (cosines >= cosines.diagonal()[:, None]).sum(1) <= _NEAREST


@torch.no_grad()
def _measure(model: Feel, batch: FeelBatch, loss: FeelLossConfig) -> dict[str, Tensor]:
    """Of a batch, by the modality's letter and the name: the targets and what is converted to them as in
    `alone` (`vector`), [V, d], and the errors, [V]."""
    videos, texts, converter = batch.feature_mask, batch.attention_mask, model.converter
    e_v, e_t = model.embed_features(batch.features), model.embed_text(batch.input_ids, texts)
    made = converter(e_v, e_t, videos, texts)
    o_v, o_t = converter.cross(e_v, e_t, videos, texts, apart=True)
    x = Sequences(e_v, e_t, made.once_v, made.once_t, videos, texts, made.twice_v, made.twice_t)
    hinges = equations.cs(x, margin=loss.margin, distance=loss.cs_distance)
    pooled = {
        "v": {
            "target": x.pooled(e_v, videos),
            "once": x.pooled(made.once_v, texts),
            "alone": x.pooled(converter.text_to_video.convert(o_t, texts), texts),
            "twice": x.pooled(cast(Tensor, made.twice_v), videos),
        },
        "t": {
            "target": x.pooled(e_t, texts),
            "once": x.pooled(made.once_t, videos),
            "alone": x.pooled(converter.video_to_text.convert(o_v, videos), videos),
            "twice": x.pooled(cast(Tensor, made.twice_t), texts),
        },
    }
    out = {"v_active": hinges["cs_v2t"] > 0, "t_active": hinges["cs_t2v"] > 0}
    for modality, vectors in pooled.items():
        target = vectors.pop("target")
        out[f"{modality}_target"], out[f"{modality}_vector"] = target, vectors["alone"]
        for name, vector in vectors.items():
            out[f"{modality}_{name}"] = (vector - target).square().mean(-1)
    return out


def shares_of_constant(diagnosis: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Each error ÷ that of a constant, such as `v once`: 1 is the error of the mean of all targets."""
    return {
        f"{modality} {name}": values[name] / values["constant"]
        for modality, values in diagnosis.items()
        for name in ("once", "alone", "twice")
    }
