"""Measures one set of texts on one corpus, in one or several galleries.

The result of a gallery is {"global", "local", "ensemble"}: ranked by the similarity of embeddings; candidates
re-ranked by the match of their salient frames; re-ranked by both. Each holds `text_to_video`, `video_to_text`
and `R@SUM`; "ensemble" also `first_places`: how R@1, text to video, changes from "global". Where nothing
matches there is only "global". If options name further numbers of salient frames, "salient_frames" holds
`local` and `ensemble` for each.
Shapes: Q texts, G segments, V videos.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from model.arrays import Array, Rows
from model.evaluation.corpus import Corpus, Texts, TokenOptions
from model.evaluation.matching import match_pairs, salience_match
from model.evaluation.rerank import BothRanks, Reranking, global_ranks, pairs_to_match
from model.families.encoder import Encoder
from model.progress import Report, silent
from model.runtime.bundle import HubnessCorrection
from model.runtime.bundle.manifest import MatchKind, SalienceMatch
from model.runtime.errors import InputError
from model.runtime.ranking import SCORE_DECIMALS
from model.runtime.retrieval_metrics import first_places

#: The match by relevance of a model for which it was not fitted: the mean relevance itself, as in Table 8.
UNFITTED = SalienceMatch(scale=1.0, bias=0.0)


@dataclass(frozen=True)
class Options:
    """What is measured; None: as the model's settings say.

    Attributes:
        rerank: re-rank too, if there is a matcher or `match` is "salience".
        match: what re-ranks: the matcher, or the relevance of the salient frames.
        salience_match: how relevance becomes a match, if that re-ranks.
        mode: re-rank the nearest `num_candidates`, or all pairs.
        num_candidates: videos re-ranked for a text, and texts re-ranked for a video.
        num_salient_frames: frames of a segment that are matched.
        salient_frames: further such numbers, measured from the same logits.
        ensemble_lambda: λ.
        tokens: how frame tokens are stored between encoder and matcher.
        hubness: what is subtracted from similarities; with the weight 0, nothing.

    Raises:
        InputError: a value is invalid.
    """

    rerank: bool = True
    match: MatchKind | None = None
    salience_match: SalienceMatch | None = None
    mode: Literal["top-k", "all-pairs"] = "top-k"
    num_candidates: int | None = None
    num_salient_frames: int | None = None
    salient_frames: tuple[int, ...] = ()
    ensemble_lambda: float | None = None
    tokens: TokenOptions = field(default_factory=TokenOptions)
    hubness: HubnessCorrection | None = None

    def __post_init__(self) -> None:
        if self.match not in (None, "matcher", "salience"):
            raise InputError(f"match is {self.match!r}: choose matcher or salience", "match")
        if self.mode not in ("top-k", "all-pairs"):
            raise InputError(f"mode is {self.mode!r}: choose top-k or all-pairs", "mode")
        for name in ("num_candidates", "num_salient_frames"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}: it must be at least 1", name)
        if any(n < 1 for n in self.salient_frames):
            numbers = list(self.salient_frames)
            raise InputError(f"salient_frames is {numbers}: each must be at least 1", "salient_frames")
        if self.ensemble_lambda is not None and not 0 <= self.ensemble_lambda < float("inf"):
            lam = self.ensemble_lambda
            raise InputError(f"ensemble_lambda is {lam}: it must be 0 or more", "ensemble_lambda")

    def filled(self, encoder: Encoder) -> Options:
        """These options, with the model's settings in place of None.

        Raises:
            InputError: salience is to match, and the model says nothing of single frames.
        """
        profile = encoder.profile
        if self.match == "salience" and not profile.has_salience:
            raise InputError(
                "match is salience, but the model reads whole segments and says nothing of single frames: "
                "leave the option out",
                "match",
            )
        candidates = None
        if self.mode == "top-k":
            candidates = self.num_candidates or profile.num_candidates
        lam = self.ensemble_lambda
        match = self.match or ("salience" if profile.salience_match else "matcher")
        return replace(
            self,
            rerank=self.rerank and (match == "salience" or encoder.has_matcher),
            match=match,
            salience_match=(self.salience_match or profile.salience_match or UNFITTED)
            if match == "salience"
            else None,
            num_candidates=candidates,
            num_salient_frames=self.num_salient_frames or profile.num_salient_frames,
            ensemble_lambda=profile.ensemble_lambda if lam is None else lam,
            tokens=replace(self.tokens, per_frame=self.tokens.per_frame or profile.tokens_per_frame),
            hubness=self.hubness or profile.hubness,
        )

    @property
    def reads_tokens(self) -> bool:
        """Whether a matcher reads tokens; of `filled` options."""
        return self.rerank and self.match == "matcher"

    @property
    def numbers(self) -> tuple[int, ...]:
        """All numbers of salient frames to measure, the main one first."""
        return tuple(dict.fromkeys((self.num_salient_frames or 1, *self.salient_frames)))


def settings_of(encoder: Encoder, options: Options) -> dict[str, Any]:
    """The settings that a result is measured with, for its JSON."""
    options = options.filled(encoder)
    first_stage = {} if options.hubness is None else {"hubness_weight": options.hubness.weight}
    if not options.rerank:
        return {"rerank": False, **first_stage}
    return {
        "rerank": True,
        **first_stage,
        "match": options.match,
        **({"salience_match": options.salience_match.model_dump()} if options.salience_match else {}),
        "mode": options.mode,
        "num_candidates": options.num_candidates,
        "num_salient_frames": options.num_salient_frames,
        "ensemble_lambda": options.ensemble_lambda,
        **(
            {"tokens": options.tokens.kind, "tokens_per_frame": options.tokens.per_frame}
            if options.reads_tokens
            else {}
        ),
    }


@dataclass(frozen=True)
class Gallery:
    """Texts and segments that are ranked among each other, and those of them whose ranks count.

    Attributes:
        rows: the texts, bool [Q].
        columns: the segments, bool [G].
        count_rows: which of these texts count, bool [number of rows]; None: all.
        count_videos: which of these videos count, by their order; None: all.
    """

    rows: NDArray[np.bool_]
    columns: NDArray[np.bool_]
    count_rows: NDArray[np.bool_] | None = None
    count_videos: Rows | None = None


class Measurement:
    """Similarities, less the hubness correction, and match scores of a corpus, to cut galleries from."""

    def __init__(
        self, encoder: Encoder, texts: Texts, corpus: Corpus, target: Rows, options: Options
    ) -> None:
        self.texts, self.corpus, self.target, self.options = texts, corpus, target, options.filled(encoder)
        self.similarity = _similarity(texts, corpus, self.options.hubness)
        self.match: Mapping[int, Array] = {}
        self._encoder = encoder

    def whole(self) -> Gallery:
        """The gallery of all texts and all videos."""
        rows, columns = self.similarity.shape
        return Gallery(np.ones(rows, np.bool_), np.ones(columns, np.bool_))

    def score(self, galleries: Sequence[Gallery], report: Report = silent) -> None:
        """Match the pairs that the galleries need."""
        if not self.options.rerank:
            return
        pairs = np.zeros(self.similarity.shape, np.bool_)
        for gallery in galleries:
            part, owner, _ = self._cut(gallery)
            pairs[part] |= pairs_to_match(self.similarity[part], owner, self.options.num_candidates)
        self.score_pairs(pairs, report)

    def score_pairs(self, pairs: NDArray[np.bool_], report: Report = silent) -> None:
        """Match some pairs of a text and a segment, bool [Q, G], if anything re-ranks."""
        if not self.options.rerank:
            return
        numbers = self.options.numbers
        if self.options.reads_tokens:
            self.match = match_pairs(self._encoder, self.texts, self.corpus, pairs, numbers, report)
        elif self.options.salience_match is not None:
            self.match = salience_match(
                self.texts, self.corpus, pairs, numbers, self.options.salience_match, self.similarity
            )

    def ranking(self, gallery: Gallery, num_salient: int | None = None) -> Reranking:
        """One gallery's pairs, to be ranked by any λ.

        `num_salient` is one of `options.numbers`; None: the first.

        Raises:
            ValueError: there are no match scores: nothing re-ranks, or `score` was not called.
        """
        if not self.match:
            raise ValueError("there are no match scores: measure a model that re-ranks, and call score first")
        part, owner, target = self._cut(gallery)
        match = self.match[num_salient or self.options.numbers[0]]
        return Reranking(self.similarity[part], match[part], target, owner, self.options.num_candidates)

    def first_stage(self, gallery: Gallery) -> BothRanks:
        """The ranks by similarity that count in a gallery."""
        part, owner, target = self._cut(gallery)
        return _counted(global_ranks(self.similarity[part], target, owner), gallery)

    def metrics(self, gallery: Gallery) -> dict[str, Any]:
        """The result of one gallery."""
        first_stage = self.first_stage(gallery)
        result: dict[str, Any] = {"global": first_stage.metrics()}
        lam = self.options.ensemble_lambda or 0.0
        for n in self.match:
            reranking = self.ranking(gallery, n)
            ranked = {
                name: _counted(reranking.ranks(weight), gallery)
                for name, weight in (("local", 0.0), ("ensemble", lam))
            }
            both = {name: ranks.metrics() for name, ranks in ranked.items()}
            both["ensemble"]["first_places"] = first_places(
                first_stage.text_to_video, ranked["ensemble"].text_to_video
            )
            if n == self.options.num_salient_frames:
                result |= both
            if self.options.salient_frames:
                result.setdefault("salient_frames", {})[str(n)] = both
        return result

    def _cut(self, gallery: Gallery) -> tuple[tuple[NDArray[Any], ...], Rows, Rows]:
        """The index of a gallery's pairs, the video of each of its segments, and of each of its texts."""
        part = np.ix_(gallery.rows, gallery.columns)
        videos, owner = np.unique(self.corpus.owner[gallery.columns], return_inverse=True)
        return part, owner, np.searchsorted(videos, self.target[gallery.rows])


def _similarity(texts: Texts, corpus: Corpus, hubness: HubnessCorrection | None) -> Array:
    """Similarities as the first stage of a search ranks by them, [Q, G]."""
    similarity = texts.embedding @ corpus.embedding.T
    if hubness is not None and hubness.weight > 0:
        similarity -= np.float32(hubness.weight) * hubness.of(corpus.embedding)
    return similarity.round(SCORE_DECIMALS)


def _counted(ranks: BothRanks, gallery: Gallery) -> BothRanks:
    """The ranks that count in a gallery."""
    forwards, backwards = ranks.text_to_video, ranks.video_to_text
    if gallery.count_rows is not None:
        forwards = forwards[gallery.count_rows]
    if gallery.count_videos is not None:
        backwards = backwards[gallery.count_videos]
    return BothRanks(forwards, backwards)
