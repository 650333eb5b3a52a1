"""The total objective of LGDN (eq. 10) for one batch, on one process or on several.

Each of several processes holds a part of the joint batch, and every loss equals that of one process with the
whole batch: banks and negatives are gathered, and a pair of LSFM is computed where its video is, so that only
text tokens travel with a gradient.

Shapes: B this process's batch, G the joint batch, N frame slots, R frame-text pairs, D joint space.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model import distributed
from model.families.feel.objective import ConversionLosses
from model.families.lgdn.config import LossConfig
from model.families.lgdn.conversion import conversion_losses
from model.families.lgdn.losses import Negatives, distillation, lsfm, mfcl, mvcl, retention
from model.families.lgdn.network import LGDN, FrameFeatures, LGDNBatch, TextFeatures
from model.families.lgdn.salience import frame_salience, salient_mask, select_salient_tensor, text_salience


@dataclass(frozen=True)
class Pairs:
    """Video-text pairs of LSFM, all of shape [Q].

    Attributes:
        texts: int64, rows of the joint batch's texts.
        videos: int64, rows of this process's videos.
        matched: bool, whether the text belongs to the video.
    """

    texts: Tensor
    videos: Tensor
    matched: Tensor


class Objective(nn.Module):
    """The losses of a model, as a module that DistributedDataParallel can wrap."""

    def __init__(self, model: LGDN, loss: LossConfig, seed: int = 0) -> None:
        super().__init__()
        self.model, self.loss, self.seed = model, loss, seed
        self._conversion = ConversionLosses(loss.gmr, loss.cs, loss.cs_margin)

    def forward(self, batch: LGDNBatch, step: int, epoch: int) -> dict[str, Tensor]:
        """Losses of one batch; afterwards its momentum embeddings are in the banks.

        Args:
            batch: this process's part.
            step: seeds the choice of hard negatives, the same on every process.
            epoch: counts from 0; in the warm-up all real frames count, and none are proposed.

        Returns:
            Scalars: `v2t`, `t2v`, `mvcl`, `t2e`, `e2t`, `mfcl`, `lsfm`, `retention`, and those of
            `ConversionLosses`, as far as they are on, and `total` (eq. 10, weighted). Their mean over the
            processes is the joint batch's.
        """
        model, weights = self.model, self.loss
        sfp = weights.sfp and epoch >= weights.warmup_epochs
        frames = model.online.encode_frames(batch.frames)
        text = model.online.encode_text(batch.input_ids, batch.attention_mask)
        with torch.no_grad():
            momentum_frames = model.momentum.encode_frames(batch.frames)
            text_hat = model.momentum.encode_text(batch.input_ids, batch.attention_mask).embedding
        with torch.autocast(batch.frame_mask.device.type, enabled=False):
            slots = frames.embedding.float()[batch.slots]
            slots_hat = momentum_frames.embedding.float()[batch.slots]
            text_hat = text_hat.float()
            video = model.online.encode_segment(frames.temporal_input.float()[batch.slots], batch.frame_mask)
            with torch.no_grad():
                video_hat = model.momentum.encode_segment(
                    momentum_frames.temporal_input.float()[batch.slots], batch.frame_mask
                )
                newest = _gathered(video_hat, text_hat, slots_hat, batch)
                negatives = model.bank.negatives()
                if weights.batch_negatives:
                    negatives = negatives.join(_as_negatives(*newest))
                strategy, mask = model.config.salience_strategy, batch.frame_mask
                slot_salience = frame_salience(strategy, slots.detach(), slots_hat)
                query_salience = text_salience(strategy, text.embedding.detach(), text_hat)
                positives = mask > 0
                if sfp:
                    relevance = torch.einsum("bns,bs->bn", slot_salience, query_salience)
                    salient = select_salient_tensor(relevance, mask, model.config.num_salient_frames)
                    positives = salient_mask(*salient, mask.shape[1])
            tau = model.temperature
            losses: dict[str, Tensor] = {}
            total = torch.zeros((), device=mask.device)
            if weights.mvcl:
                losses |= mvcl(video, text.embedding, video_hat, text_hat, batch.video_ids, negatives, tau)
                total = total + weights.mvcl * losses["mvcl"]
            if weights.mfcl:
                losses |= mfcl(
                    slots, text.embedding, slots_hat, text_hat,
                    positives, batch.video_ids, negatives, tau, weights.msl,
                )  # fmt: skip
                total = total + weights.mfcl * losses["mfcl"]
            if (
                batch.taught is not None
                and batch.counted is not None
                and model.teacher_projection is not None
            ):
                known = batch.taught.abs().sum(1) > 0
                taught = F.normalize(model.teacher_projection(batch.taught.float()), dim=-1)
                if weights.teacher_mfcl:
                    # A frame that the other encoder has not seen stands for itself.
                    shown = torch.where(known[:, None], taught, frames.embedding.detach().float())[
                        batch.slots
                    ]
                    losses["teacher_mfcl"] = mfcl(
                        shown, text.embedding, shown.detach(), text_hat,
                        positives, batch.video_ids, negatives, tau, weights.msl,
                    )["mfcl"]  # fmt: skip
                    total = total + weights.teacher_mfcl * losses["teacher_mfcl"]
                if weights.distillation:
                    each = distillation(frames.embedding.float(), taught.detach())
                    losses["distillation"] = distributed.mean_of(each[known & batch.counted])
                    total = total + weights.distillation * losses["distillation"]
        if weights.lsfm:
            losses["lsfm"] = self._lsfm(batch, frames, text, video, slot_salience, query_salience, step, sfp)
            total = total + weights.lsfm * losses["lsfm"]
        if model.converter is not None:
            words = model.online.words(text)
            converted = conversion_losses(
                self._conversion, model.converter, slots, words, batch.frame_mask, batch.attention_mask
            )
            losses |= converted
            for name in ("gmr", "cs"):
                if name in converted:
                    total = total + getattr(weights, name) * converted[name]
        if batch.teacher is not None and model.online.classifier is not None:
            with torch.autocast(batch.frame_mask.device.type, enabled=False):
                each = retention(model.online.classifier(frames.pooled.float()), batch.teacher)
            # Frames without a teacher, or that count for another process, have rows of zeros.
            losses["retention"] = distributed.mean_of(each[batch.teacher.sum(1) > 0])
            total = total + weights.retention_weight * losses["retention"]
        model.bank.enqueue(*newest)
        return losses | {"total": total}

    def _lsfm(
        self,
        batch: LGDNBatch,
        frames: FrameFeatures,
        text: TextFeatures,
        video: Tensor,
        slot_salience: Tensor,
        query_salience: Tensor,
        step: int,
        sfp: bool,
    ) -> Tensor:
        """Equation 9 over matched pairs and hard negatives, each on the frames salient for its own text."""
        model = self.model
        length = distributed.longest(batch.input_ids.shape[1], video.device)
        if model.fusion.reads == "ids":
            text_input = distributed.gather(distributed.pad_second(batch.input_ids, length))
        else:
            text_input = distributed.gather_with_grad(distributed.pad_second(text.tokens, length))
        token_mask = distributed.gather(distributed.pad_second(batch.attention_mask, length))
        # In half precision similar frames would tie, and other frames be chosen than in search.
        with torch.no_grad(), torch.autocast(video.device.type, enabled=False):
            embeddings = distributed.gather(text.embedding)
            query_salience = distributed.gather(query_salience)
            owners = distributed.gather(batch.video_ids)
            similarity = embeddings.float() @ distributed.gather(video).T / model.temperature
            first = distributed.rank() * len(video)
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
            pairs = choose_pairs(
                similarity, owners, slice(first, first + len(video)), self.loss.hard_negatives, generator
            )
            mask = batch.frame_mask[pairs.videos]
            if sfp:
                relevance = torch.einsum(
                    "qns,qs->qn", slot_salience[pairs.videos], query_salience[pairs.texts]
                )
                index, real = select_salient_tensor(relevance, mask, model.config.num_salient_frames)
            else:
                index = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
                real = mask > 0
            packed = batch.slots[pairs.videos].gather(1, index)[real]
            texts = pairs.texts[:, None].expand_as(index)[real]
            matched = pairs.matched[:, None].expand_as(index)[real]
        # Cut to the longest text of these pairs, not of the batch: there is less to attend to.
        longest = int(token_mask[texts].sum(1).max()) if len(texts) else 1
        logits = model.fusion(
            text_input[:, :longest].index_select(0, texts),
            token_mask[texts, :longest],
            frames.tokens.index_select(0, packed),
        )
        return distributed.mean_of(lsfm(logits.float(), matched))


def choose_pairs(
    similarity: Tensor, owners: Tensor, own_videos: slice, hard: bool, generator: torch.Generator
) -> Pairs:
    """Pair each text with its video and with one other video, and each video with one other text.

    The others are drawn by the softmax of their similarity (ALBEF's hard negatives), or uniformly. Pairs that
    show the same video are left out, so a text or video may have no partner, and gives no negative.

    Args:
        similarity: cosines of joint texts and videos over the temperature, shape [G, G].
        owners: int64 [G], the video that each pair shows.
        own_videos: this process's videos among the joint ones; pairs of other videos are left out.
        hard: draw by similarity; false: uniformly.
        generator: on the CPU and with the same state on every process, so that all draw alike.
    """
    foreign = (owners[:, None] != owners[None, :]).cpu()
    # A model that diverged must not fail here: its losses tell.
    weight = similarity.detach().float().cpu().nan_to_num() if hard else torch.zeros(foreign.shape)
    all_rows = torch.arange(len(owners))
    texts, videos, matched = [all_rows], [all_rows], [torch.ones(len(owners), dtype=torch.bool)]
    for logits, allowed, of_texts in ((weight, foreign, True), (weight.T, foreign.T, False)):
        has_partner = allowed.any(1)
        # Rows without a partner take part in the draw, so that draws do not depend on the data's order.
        share = logits.masked_fill(~allowed & has_partner[:, None], float("-inf")).softmax(1)
        drawn = torch.multinomial(share, 1, generator=generator)[:, 0]
        texts.append((all_rows if of_texts else drawn)[has_partner])
        videos.append((drawn if of_texts else all_rows)[has_partner])
        matched.append(torch.zeros(int(has_partner.sum()), dtype=torch.bool))
    text, video, label = torch.cat(texts), torch.cat(videos), torch.cat(matched)
    is_own = (video >= own_videos.start) & (video < own_videos.stop)
    device = similarity.device
    own_rows = video[is_own] - own_videos.start
    return Pairs(text[is_own].to(device), own_rows.to(device), label[is_own].to(device))


def _gathered(
    video: Tensor, text: Tensor, frames: Tensor, batch: LGDNBatch
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What the banks take, gathered from all processes."""
    entries = (video, text, frames, batch.frame_mask, batch.video_ids)
    a, b, c, d, e = (distributed.gather(x) for x in entries)
    return a, b, c, d, e


def _as_negatives(
    videos: Tensor, texts: Tensor, frames: Tensor, frame_mask: Tensor, owners: Tensor
) -> Negatives:
    real = frame_mask > 0
    return Negatives(videos, texts, owners, frames[real], owners[:, None].expand_as(real)[real])
