"""The total objective, frame by frame, text by text and pair by pair: the reference of its tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from model.families.lgdn.config import LossConfig
from model.families.lgdn.network import LGDN, LGDNBatch, Towers
from model.families.lgdn.objective import choose_pairs
from tests.support import naive_losses

Rows = list[Tensor]


@dataclass
class Entry:
    """What a bank keeps of a pair: vectors of the video, the text and the real frames, without gradients."""

    owner: int
    video: Tensor
    text: Tensor
    frames: Rows


@dataclass
class Encoded:
    """Of each pair: the video, the text with its tokens, and the real frames, by slot, with their tokens."""

    videos: Rows = field(default_factory=list)
    texts: Rows = field(default_factory=list)
    words: Rows = field(default_factory=list)
    frames: list[dict[int, Tensor]] = field(default_factory=list)
    tokens: list[dict[int, Tensor]] = field(default_factory=list)


def encode(towers: Towers, batch: LGDNBatch) -> Encoded:
    """Every text without padding, every frame by itself."""
    out, packed = Encoded(), [towers.encode_frames(frame[None]) for frame in batch.frames]
    for slots, mask, ids, words in zip(
        batch.slots, batch.frame_mask, batch.input_ids, batch.attention_mask.sum(1).tolist(), strict=True
    ):
        each = [packed[slot] for slot in slots.tolist()]
        text = towers.encode_text(ids[None, :words], torch.ones(1, words, dtype=torch.int64))
        embeddings = torch.cat([features.embedding for features in each])
        if not towers.config.normalise_frames:
            # There is no dropout: the projection is that of the embedding.
            embeddings = towers.project_frames(torch.cat([features.pooled for features in each]))
        out.videos.append(towers.encode_segment(embeddings[None], mask[None])[0])
        out.texts.append(text.embedding[0])
        out.words.append(text.tokens[0])
        real = mask.nonzero()[:, 0].tolist()
        out.frames.append({j: each[j].embedding[0] for j in real})
        out.tokens.append({j: each[j].tokens[0] for j in real})
    return out


def relevance(strategy: str, f: Tensor, f_hat: Tensor, text: Tensor, text_hat: Tensor) -> float:
    """Table 1."""
    score = {
        "simdot": f @ text,
        "momentum": f @ text + f_hat @ text_hat,
        "crossmom": f_hat @ text + f @ text_hat,
        "collaborative": (f + f_hat) @ (text + text_hat),
    }
    return float(score[strategy].detach())


def distance(a: Tensor, b: Tensor) -> Tensor:
    """The mean squared error of FEEL, eq. 7."""
    return (a - b).square().sum() / len(a)


class NaiveObjective:
    """Takes what `Objective` takes, and gives what it gives."""

    def __init__(self, model: LGDN, loss: LossConfig, seed: int = 0) -> None:
        self.model, self.loss, self.seed = model, loss, seed
        self.bank: list[Entry] = []

    def __call__(self, batch: LGDNBatch, step: int, sfp: bool) -> dict[str, Tensor]:
        model, loss, tau = self.model, self.loss, self.model.temperature
        owners = batch.video_ids.tolist()
        online = encode(model.online, batch)
        with torch.no_grad():
            slow = encode(model.momentum, batch)
        newest = [
            Entry(owner, slow.videos[i], slow.texts[i], list(slow.frames[i].values()))
            for i, owner in enumerate(owners)
        ]
        entries = self.bank + (newest if loss.batch_negatives else [])
        others = [[entry for entry in entries if entry.owner != owner] for owner in owners]
        videos, texts = torch.stack(online.videos), torch.stack(online.texts)
        videos_hat, texts_hat = torch.stack(slow.videos), torch.stack(slow.texts)

        def salient(video: int, text: int) -> list[int]:
            """The frames of a video that are proposed for a text, which may be another pair's."""
            frames = list(online.frames[video])
            if not sfp:
                return frames
            scores = {
                j: relevance(
                    model.config.salience_strategy,
                    online.frames[video][j],
                    slow.frames[video][j],
                    online.texts[text],
                    slow.texts[text],
                )
                for j in frames
            }
            return sorted(frames, key=lambda j: -scores[j])[: model.config.num_salient_frames]

        losses = {}
        foreign_texts = [[entry.text for entry in row] for row in others]
        if loss.mvcl:
            foreign_videos = [[entry.video for entry in row] for row in others]
            losses["v2t"] = naive_losses.contrast(videos, texts_hat, foreign_texts, tau)
            losses["t2v"] = naive_losses.contrast(texts, videos_hat, foreign_videos, tau)
            losses["mvcl"] = losses["v2t"] + losses["t2v"]
        if loss.mfcl:
            foreign_frames = [[frame for entry in row for frame in entry.frames] for row in others]
            sets = [[online.frames[i][j] for j in salient(i, i)] for i in range(len(owners))]
            sets_hat = [[slow.frames[i][j] for j in salient(i, i)] for i in range(len(owners))]
            losses["t2e"] = naive_losses.text_to_frames(texts, sets_hat, foreign_frames, tau, loss.msl)
            losses["e2t"] = naive_losses.frames_to_text(sets, texts_hat, foreign_texts, tau, loss.msl)
            losses["mfcl"] = losses["t2e"] + losses["e2t"]
        if batch.taught is not None and batch.counted is not None and model.teacher_projection is not None:
            self._teach(batch, online, texts, texts_hat, foreign_texts, others, salient, losses)
        if loss.lsfm:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
            everyone = slice(0, len(owners))
            similarity = texts @ videos.T / tau
            pairs = choose_pairs(similarity, batch.video_ids, everyone, loss.hard_negatives, generator)
            logits, labels = [], []
            for text, video, label in zip(*(x.tolist() for x in vars(pairs).values()), strict=True):
                for j in salient(video, text):
                    words = online.words[text][None]
                    ones = torch.ones(words.shape[:2], dtype=torch.int64)
                    logits.append(model.fusion(words, ones, online.tokens[video][j][None])[0])
                    labels.append(int(label))
            losses["lsfm"] = naive_losses.matching(logits, labels)
        if batch.teacher is not None and model.online.classifier is not None:
            pooled = [model.online.encode_frames(frame[None]).pooled for frame in batch.frames]
            losses["retention"] = naive_losses.mean(
                [
                    -(shares * F.log_softmax(model.online.classifier(x)[0], 0)).sum()
                    for x, shares in zip(pooled, batch.teacher, strict=True)
                    if shares.sum() > 0
                ]
            )
        if model.converter is not None:
            self._convert(batch, online, losses)
        weights = {
            "gmr": loss.gmr,
            "cs": loss.cs,
            "mvcl": loss.mvcl,
            "mfcl": loss.mfcl,
            "lsfm": loss.lsfm,
            "teacher_mfcl": loss.teacher_mfcl,
            "distillation": loss.distillation,
            "retention": loss.retention_weight,
        }
        losses["total"] = naive_losses.total(
            [weight * losses[name] for name, weight in weights.items() if name in losses]
        )
        self.bank = (self.bank + newest)[-model.config.bank_size :]
        return losses

    def _convert(self, batch: LGDNBatch, online: Encoded, losses: dict[str, Tensor]) -> None:
        """GMR and CS of FEEL, pair by pair: the text without padding, zeros in the slots without a frame."""
        model, loss = self.model, self.loss
        assert model.converter is not None
        length = model.config.dim**0.5
        each: dict[str, Rows] = {name: [] for name in ("gmr_t2v", "gmr_v2t", "cs_t2v", "cs_v2t")}
        for i, mask in enumerate(batch.frame_mask):
            real = list(online.frames[i])
            nothing = torch.zeros(model.config.dim)
            slots = [online.frames[i][j] * length if j in real else nothing for j in range(len(mask))]
            words = online.words[i]
            if not model.online.joint:
                spoken = model.online.text_projection(words[1:])
                words = torch.stack([online.texts[i], *(F.normalize(word, dim=0) for word in spoken)])
            words = words * length
            made = model.converter(
                torch.stack(slots)[None], words[None], mask[None], torch.ones(1, len(words)), twice=True
            )
            assert made.twice_v is not None
            assert made.twice_t is not None
            e_v = naive_losses.mean([slots[j] for j in real]).detach()
            e_t = naive_losses.mean(list(words)).detach()
            once_v = naive_losses.mean(list(made.once_v[0]))
            once_t = naive_losses.mean([made.once_t[0, j] for j in real])
            twice_v = naive_losses.mean([made.twice_v[0, j] for j in real])
            twice_t = naive_losses.mean(list(made.twice_t[0]))
            each["gmr_t2v"].append(distance(e_v, once_v))
            each["gmr_v2t"].append(distance(e_t, once_t))
            for way, origin, twice, once in (("t2v", e_t, twice_t, once_t), ("v2t", e_v, twice_v, once_v)):
                value = distance(origin, twice) - distance(origin, once) + loss.cs_margin
                each[f"cs_{way}"].append(value if value > 0 else value * 0)
        for name, weight in (("gmr", loss.gmr), ("cs", loss.cs)):
            if weight:
                t2v, v2t = (naive_losses.mean(each[f"{name}_{way}"]) for way in ("t2v", "v2t"))
                losses |= {f"{name}_t2v": t2v, f"{name}_v2t": v2t, name: t2v + v2t}

    def _teach(
        self,
        batch: LGDNBatch,
        online: Encoded,
        texts: Tensor,
        texts_hat: Tensor,
        foreign_texts: list[Rows],
        others: list[list[Entry]],
        salient: Callable[[int, int], list[int]],
        losses: dict[str, Tensor],
    ) -> None:
        """The losses that learn from another encoder: MFCL with its embeddings, and the distance to them."""
        model, loss, tau = self.model, self.loss, self.model.temperature
        assert model.teacher_projection is not None
        assert batch.taught is not None
        assert batch.counted is not None
        known = [bool(row.any()) for row in batch.taught]
        placed = [F.normalize(model.teacher_projection(row), dim=0) for row in batch.taught]
        if loss.teacher_mfcl:
            sets = []
            for i, slots in enumerate(batch.slots.tolist()):
                shown = salient(i, i)
                sets.append(
                    [placed[slots[j]] if known[slots[j]] else online.frames[i][j].detach() for j in shown]
                )
            fixed = [[frame.detach() for frame in row] for row in sets]
            foreign_frames = [[frame for entry in row for frame in entry.frames] for row in others]
            t2e = naive_losses.text_to_frames(texts, fixed, foreign_frames, tau, loss.msl)
            e2t = naive_losses.frames_to_text(sets, texts_hat, foreign_texts, tau, loss.msl)
            losses["teacher_mfcl"] = t2e + e2t
        if loss.distillation:
            own = [model.online.encode_frames(frame[None]).embedding[0] for frame in batch.frames]
            counted = [f for f in range(len(own)) if known[f] and batch.counted[f]]
            losses["distillation"] = naive_losses.mean(
                [1 - naive_losses.cos(own[f], placed[f].detach()) for f in counted]
            )
