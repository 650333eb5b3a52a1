"""The objectives of FEEL for one batch: pre-training, and fine-tuning for videos and moments.

Each of several processes holds a part of the joint batch; the mean of their losses is that of one process
with the whole batch. Rows and queries of a batch are as many on every process.

Shapes: B videos, M feature vectors, L text tokens, d width, Q queries; V and G the videos and queries of all
processes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model import distributed
from model.backbones.pooling import masked_mean
from model.families.feel import losses as equations
from model.families.feel.batch import FeelBatch, check_mask
from model.families.feel.config import PRETRAINING, FeelLossConfig
from model.families.feel.conversion import Converter
from model.families.feel.losses import HardNegatives, Sequences
from model.families.feel.masking import mask_frames, mask_tokens
from model.families.feel.moments import video_scores
from model.families.feel.network import Feel


@dataclass(frozen=True)
class ConversionLosses:
    """GMR, CS and `contrast` over the tokens of any family; weights and options as in `FeelLossConfig`."""

    gmr: float = 1.0
    cs: float = 1.0
    margin: float = 0.1
    distance: str = "mse"
    stop_gradient: bool = True
    contrast: float = 0.0
    temperature: float = 0.1

    def __call__(
        self,
        converter: Converter,
        e_v: Tensor,
        e_t: Tensor,
        video_mask: Tensor,
        text_mask: Tensor,
        video_ids: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The losses that are on.

        Shapes e_v [B, M, d], e_t [B, L, d], video_mask [B, M], text_mask [B, L]; video_ids int64 [B], which
        rows show the same video; None: all show different ones.

        Returns:
            Scalars: `gmr_t2v`, `gmr_v2t` and their sum `gmr` (FEEL, eq. 7–9); `cs_t2v`, `cs_v2t` and their
            sum `cs` (eq. 12, 15, 16); `contrast_t2v`, `contrast_v2t` and their sum `contrast`.
        """
        if not self.gmr and not self.cs and not self.contrast:
            return {}
        converted = converter(e_v, e_t, video_mask, text_mask, twice=self.cs > 0)
        x = Sequences(
            e_v, e_t, converted.once_v, converted.once_t, video_mask, text_mask,
            converted.twice_v, converted.twice_t,
        )  # fmt: skip
        out: dict[str, Tensor] = {}
        with torch.autocast(e_v.device.type, enabled=False):
            if self.gmr:
                out |= _summed("gmr", equations.gmr(x, stop_gradient=self.stop_gradient))
            if self.cs:
                rows = equations.cs(
                    x, margin=self.margin, distance=self.distance, stop_gradient=self.stop_gradient
                )
                out |= _summed("cs", rows)
            if self.contrast:
                out |= self._contrast(x, video_ids)
        return out

    def _contrast(self, x: Sequences, video_ids: Tensor | None) -> dict[str, Tensor]:
        """The contrast with the videos of all processes, the same on each of them."""
        count = len(x.e_v)
        own = torch.arange(count, device=x.e_v.device) + distributed.rank() * count
        counts = distributed.gather(x.counts().to(torch.uint8)) > 0
        owners = distributed.gather(own if video_ids is None else video_ids)[counts]
        pairs = {
            "contrast_t2v": (x.e_v, x.video_mask, x.once_v, x.text_mask),
            "contrast_v2t": (x.e_t, x.text_mask, x.once_t, x.video_mask),
        }
        out: dict[str, Tensor] = {}
        for name, (target, target_mask, converted, converted_mask) in pairs.items():
            targets = distributed.gather(masked_mean(target.float(), target_mask))[counts]
            found = distributed.gather_with_grad(masked_mean(converted.float(), converted_mask))[counts]
            each = equations.contrast(targets, found, owners, self.temperature)
            out[name] = each.sum() / max(1, len(each))
        return out | {"contrast": torch.stack(list(out.values())).sum()}


def _summed(name: str, rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """The mean of each loss over the rows of all processes, and their sum under `name`."""
    means = {key: distributed.mean_of(value) for key, value in rows.items()}
    return means | {name: torch.stack(list(means.values())).sum()}


class Pretraining(nn.Module):
    """MLM, MFM, GMR and CS, and the contrast with other videos.

    The paper predicts masked tokens with the whole video, and masked frames with the whole text (eq. 4 and
    5), and converts what is not masked: three passes of the cross-modal Transformer, and two more for CS.
    """

    def __init__(self, model: Feel, loss: FeelLossConfig, seed: int = 0) -> None:
        super().__init__()
        self.model, self.loss, self.seed = model, loss, seed
        self._conversion = ConversionLosses(
            loss.gmr,
            loss.cs,
            loss.margin,
            loss.cs_distance,
            loss.stop_gradient,
            loss.contrast,
            loss.temperature,
        )

    def forward(self, batch: FeelBatch, step: int, epoch: int) -> dict[str, Tensor]:  # noqa: ARG002
        """The losses of one batch.

        Args:
            batch: this process's part; its queries are not read.
            step: seeds what is masked.
            epoch: not used.

        Returns:
            Scalars: `mlm`, `mfm` and those of `ConversionLosses`, as far as they are on, and `total`, their
            weighted sum.

        Raises:
            InputError: tokens must be masked, and the tokenizer has no mask.
        """
        model, weights = self.model, self.loss
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + step) * 1024 + distributed.rank())
        e_v = model.embed_features(batch.features)
        out: dict[str, Tensor] = {}
        if weights.mlm:
            out["mlm"] = self._mlm(batch, e_v, generator)
        if weights.mfm or weights.gmr or weights.cs or weights.contrast:
            e_t = model.embed_text(batch.input_ids, batch.attention_mask)
            if weights.mfm:
                out["mfm"] = self._mfm(batch, e_v, e_t, generator)
            out |= self._conversion(
                model.converter, e_v, e_t, batch.feature_mask, batch.attention_mask, batch.video_ids
            )
        terms = [getattr(weights, name) * out[name] for name in PRETRAINING if name in out]
        return out | {"total": torch.stack(terms).sum()}

    def _mlm(self, batch: FeelBatch, e_v: Tensor, generator: torch.Generator) -> Tensor:
        check_mask(batch)
        vocabulary = self.model.text.vocabulary
        masked = mask_tokens(
            batch.input_ids, batch.maskable, batch.mask_id, vocabulary, self.loss.mask_share, generator
        )
        e_t = self.model.embed_text(masked.input_ids, batch.attention_mask)
        _, o_t = self.model.cross(e_v, e_t, batch.feature_mask, batch.attention_mask)
        logits = self.model.words(o_t[masked.chosen])
        return distributed.mean_of(equations.mlm(logits.float(), batch.input_ids[masked.chosen]))

    def _mfm(self, batch: FeelBatch, e_v: Tensor, e_t: Tensor, generator: torch.Generator) -> Tensor:
        real = batch.feature_mask > 0
        chosen = mask_frames(real, self.loss.mask_share, generator)
        masked = self.model.embed_features(batch.features, chosen)
        o_v, _ = self.model.cross(masked, e_t, batch.feature_mask, batch.attention_mask)
        length = distributed.longest(o_v.shape[1], o_v.device)
        as_written = self.loss.mfm_negatives == "outputs"
        others = distributed.gather_with_grad(distributed.pad_second(o_v if as_written else e_v, length))
        unmasked = distributed.gather(distributed.pad_second((real & ~chosen).to(torch.uint8), length)) > 0
        with torch.autocast(e_v.device.type, enabled=False):
            pair = e_v[chosen].float(), o_v[chosen].float()
            anchor, positive = pair if as_written else pair[::-1]
            return distributed.mean_of(equations.mfm(anchor, positive, others[unmasked].float()))


class Finetuning(nn.Module):
    """HERO's losses: videos are ranked by a hinge in both directions, moments by start and end."""

    def __init__(self, model: Feel, loss: FeelLossConfig, seed: int = 0) -> None:
        super().__init__()
        self.model, self.loss, self.seed = model, loss, seed

    def forward(self, batch: FeelBatch, step: int, epoch: int) -> dict[str, Tensor]:  # noqa: ARG002
        """The losses of one batch.

        Args:
            batch: this process's part, with queries.
            step: decides whether the span loss is left out, and from when on hard negatives weigh more.
            epoch: not used.

        Returns:
            Scalars: `query_to_video`, `video_to_query`, `span`, those that are on, and `total`, their
            weighted sum. In batches that leave the span loss out, it is no part of `total`.

        Raises:
            ValueError: the batch has no queries, or no places for their spans.
        """
        if (
            batch.query_ids is None
            or batch.query_mask is None
            or batch.query_rows is None
            or batch.spans is None
        ):
            raise ValueError("the batch has no queries: pass them to collate_features")
        model, weights = self.model, self.loss
        frames = model.encode_video(
            batch.features, batch.feature_mask, batch.input_ids, batch.attention_mask
        ).float()
        query = model.encode_query(batch.query_ids, batch.query_mask).float()
        out: dict[str, Tensor] = {}
        with torch.autocast(frames.device.type, enabled=False):
            if weights.query_to_video or weights.video_to_query:
                out |= self._ranking(batch, query, frames, batch.query_rows, step)
            if weights.span:
                rows = batch.query_rows
                start, end = model.moment_head(query, frames[rows], batch.feature_mask[rows])
                out["span"] = distributed.mean_of(equations.span(start, end, batch.spans))
        factors = {
            "query_to_video": weights.query_to_video,
            "video_to_query": weights.video_to_query,
            "span": 0.0 if self._leaves_span_out(step) else weights.span,
        }
        terms = [factor * out[name] for name, factor in factors.items() if name in out]
        return out | {"total": torch.stack(terms).sum()}

    def _ranking(
        self, batch: FeelBatch, query: Tensor, frames: Tensor, rows: Tensor, step: int
    ) -> dict[str, Tensor]:
        """Each query against all videos, and each query's video against all queries, over all processes."""
        weights, count = self.loss, len(frames)
        first = distributed.rank() * count
        own = batch.video_ids
        owners = distributed.gather(torch.arange(count, device=frames.device) + first if own is None else own)
        rows = distributed.gather(rows + first)  # [G]
        queries = distributed.gather_with_grad(query)
        by_video = video_scores(queries, frames, batch.feature_mask).T.contiguous()
        scores = distributed.gather_with_grad(by_video).T  # [G, V]
        foreign = owners[rows][:, None] != owners[None, :]  # [G, V]
        positive = scores.gather(1, rows[:, None])[:, 0]
        hard = None
        if 0 <= weights.hard_after <= step:
            hard = HardNegatives(weights.hard_count, weights.hard_weight, weights.easy_weight)
        out: dict[str, Tensor] = {}
        if weights.query_to_video:
            each = equations.hinge(positive, scores, foreign, weights.hinge_margin, hard)
            out["query_to_video"] = each.mean()
        if weights.video_to_query:
            candidates, allowed = scores.T[rows], foreign.T[rows]
            each = equations.hinge(positive, candidates, allowed, weights.hinge_margin, hard)
            out["video_to_query"] = each.mean()
        return out

    def _leaves_span_out(self, step: int) -> bool:
        """Whether this batch leaves the span loss out, the same on all processes."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        draw = float(torch.rand((), generator=generator))
        return self.training and draw < self.loss.span_skip
