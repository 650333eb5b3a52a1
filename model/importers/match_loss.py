"""Measures what precision, merged tokens and 8 bits cost a matcher: in its logits, and in the order of
pictures for texts.

Shapes: M pictures, Q texts, P tokens a frame, H their width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.importers.probe import Probe, agreement
from model.runtime.bundle.graphs import FRAME_ENCODER, MATCHER
from model.runtime.bundle.manifest import TokenSizes
from model.runtime.onnx import ort
from model.runtime.preprocessing import TextTokenizer
from model.runtime.tokens import QuantisedTokens, dequantise, merge_tokens, quantise

# Each text is matched with each picture, once for each count: more would take minutes.
_MOST_PICTURES = 16
_COUNTS = (128, 64, 32)


@dataclass(frozen=True)
class StoredCost:
    """What it costs to store frames' tokens in one way.

    Attributes:
        tokens_per_frame: how many are left of each frame.
        int8: whether they are rounded to 8 bits.
        bytes_per_frame: what a library stores.
        chosen: whether the bundle asks for it.
        mean_difference: of the logits, absolute.
        largest_difference: of the logits, absolute.
        same_first: share of texts for which the same picture comes first.
        rank_correlation: mean over texts of Spearman's correlation of the pictures' order.
    """

    tokens_per_frame: int
    int8: bool
    bytes_per_frame: int
    chosen: bool
    mean_difference: float
    largest_difference: float
    same_first: float
    rank_correlation: float


@dataclass(frozen=True)
class MatchLoss:
    """What a matcher loses against fp32 with all tokens as they are.

    Attributes:
        pictures: of what it was measured on.
        texts: how many texts each picture was matched with.
        logits: the lowest and the highest logit without loss, which differences are read against.
        costs: for each way to store tokens, the most tokens first.
    """

    pictures: str
    texts: int
    logits: tuple[float, float]
    costs: tuple[StoredCost, ...]

    def as_object(self) -> dict[str, object]:
        """For JSON, in as many digits as mean something."""
        return {
            "pictures": self.pictures,
            "texts": self.texts,
            "logits": [_short(value) for value in self.logits],
            "costs": [
                {key: _short(v) if isinstance(v, float) else v for key, v in asdict(cost).items()}
                for cost in self.costs
            ],
        }

    def lines(self) -> list[str]:
        """A table for people."""
        low, high = self.logits
        head = (
            f"match logits ({self.pictures}, {self.texts} texts; {low:.3g} to {high:.3g} without loss), "
            "by what is stored of a frame:"
        )
        rows = [
            f"{cost.tokens_per_frame:6d} tokens, {'int8' if cost.int8 else 'float32'}, "
            f"{cost.bytes_per_frame / 1000:6.1f} kB: mean difference {cost.mean_difference:.2g}, largest "
            f"{cost.largest_difference:.2g}; the first picture is the same for {cost.same_first:.0%} of "
            f"texts, rank correlation {cost.rank_correlation:.4f}{' (chosen)' if cost.chosen else ''}"
            for cost in self.costs
        ]
        return [head, *rows]


def match_loss_of(
    exact: Mapping[str, Path],
    changed: Mapping[str, Path],
    tokenize: TextTokenizer,
    probe: Probe,
    sizes: TokenSizes,
) -> MatchLoss:
    """Compare a changed matcher, which reads stored tokens, with an exact one, which reads all of them.

    Args:
        exact: the files of `frame_encoder.onnx` and `matcher.onnx`; the matcher reads ids.
        changed: the same graphs, changed or not.
        tokenize: the bundle's tokenizer.
        probe: what to measure with; of many pictures the first 16.
        sizes: of the bundle's tokens.
    """
    pictures = probe.pictures[:_MOST_PICTURES]
    tokens = _tokens(exact[FRAME_ENCODER], pictures)
    before = _logits(exact[MATCHER], tokenize, probe.texts, tokens)
    costs = []
    matcher = _session(changed[MATCHER])
    if changed[MATCHER] != exact[MATCHER]:
        tokens = _tokens(changed[FRAME_ENCODER], pictures)
        costs.append(_cost(before, _logits(matcher, tokenize, probe.texts, tokens), tokens))
    for count in _counts(sizes):
        stored = quantise(merge_tokens(tokens, count))
        after = _logits(matcher, tokenize, probe.texts, dequantise(stored))
        cost = _cost(before, after, stored)
        costs.append(replace(cost, chosen=count == sizes.stored_tokens_per_frame))
    source = probe.source if len(pictures) == len(probe.pictures) else f"{len(pictures)} of {probe.source}"
    extremes = float(before.min()), float(before.max())
    return MatchLoss(source, len(probe.texts), extremes, tuple(costs))


def _counts(sizes: TokenSizes) -> list[int]:
    """How many tokens of a frame to try: all, half, some common numbers, and what the bundle asks for."""
    most = sizes.tokens_per_frame
    wanted = {most, math.ceil(most / 2), sizes.stored_tokens_per_frame, *_COUNTS}
    return sorted((count for count in wanted if min(2, most) <= count <= most), reverse=True)


def _cost(
    before: NDArray[np.float32], after: NDArray[np.float32], stored: QuantisedTokens | NDArray[np.float32]
) -> StoredCost:
    difference = np.abs(after - before)
    first, correlation = agreement(before, after)
    if isinstance(stored, QuantisedTokens):
        count, size = stored.values.shape[1], stored.values[0].nbytes + stored.scale[0].nbytes
    else:
        count, size = stored.shape[1], stored[0].nbytes
    return StoredCost(
        tokens_per_frame=count,
        int8=isinstance(stored, QuantisedTokens),
        bytes_per_frame=size,
        chosen=False,
        mean_difference=float(difference.mean()),
        largest_difference=float(difference.max()),
        same_first=first,
        rank_correlation=correlation,
    )


def _session(graph: Path) -> ort.InferenceSession:
    return ort.InferenceSession(graph, providers=["CPUExecutionProvider"])


def _tokens(frame_encoder: Path, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The tokens of pictures, [M, P, H], one after the other."""
    session = _session(frame_encoder)
    found = [session.run(["frame_tokens"], {"frames": picture[None]})[0] for picture in pictures]
    joined: NDArray[np.float32] = np.concatenate(found)
    return joined


def _logits(
    matcher: Path | ort.InferenceSession,
    tokenize: TextTokenizer,
    texts: tuple[str, ...],
    tokens: NDArray[np.float32],
) -> NDArray[np.float32]:
    """The logit of each text with each picture's tokens, [M, P, H] → [Q, M]."""
    session = _session(matcher) if isinstance(matcher, Path) else matcher
    rows = []
    for text in texts:
        batch = tokenize([text])
        feed = {
            "input_ids": batch.input_ids.repeat(len(tokens), axis=0),
            "attention_mask": batch.attention_mask.repeat(len(tokens), axis=0),
            "frame_tokens": tokens,
        }
        rows.append(session.run(["match_logit"], feed)[0])
    return np.stack(rows)


def _short(value: float) -> float:
    return float(f"{value:.4g}")
