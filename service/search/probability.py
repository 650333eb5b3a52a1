"""How likely each moment shows or says what is asked, and what lines of text add to its score.

Pictures count by their calibrated score. A line of text with all of the query's letters counts as nine of
ten, and one with fewer as so many by its strength: this is a rule and not calibrated. Each kind of evidence
may be right by itself: the moment is wrong only if all are. What lines add to a score is the rise of the
pictures' score that would give the same probability: so the order of the scores is that of the probabilities.
A bundle without a calibration has another rule, by the spread of the scores.

Shapes: K moments.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model.runtime.bundle import Bundle
from model.runtime.bundle.manifest import Calibration, ScoreCalibration
from model.runtime.calibration import (
    Level,
    SearchEvidence,
    background_of,
    levels,
    probabilities,
    score_rise,
)
from model.runtime.ranking import SCORE_DECIMALS
from service.search.encoded_query import EncodedQuery
from service.search.scored_spans import ScoredSpan
from service.search.texts import Modalities, strongest, terms_by_spread

#: How likely a line with all words of a query means what was asked.
_LINE = 0.9
PROBABILITY_DECIMALS = 4


def evidence_of(
    bundle: Bundle, query: EncodedQuery, first_stage_scores: NDArray[np.float32]
) -> SearchEvidence:
    """What a search with a calibration knows of its query and library.

    Args:
        bundle: the model.
        query: the query.
        first_stage_scores: of the segments that are best in the whole library, in any order, [K].

    Raises:
        BundleError: the reference texts fail.
    """
    familiarity = None
    if bundle.hubness_correction is not None:
        familiarity = float(bundle.hubness(query.embedding[None])[0])
    usual = None
    if bundle.reference_images is not None:
        usual = float(bundle.reference_images.usual(query.embedding[None])[0])
    return SearchEvidence(background_of(np.sort(first_stage_scores)[::-1]), familiarity, usual)


@dataclass(frozen=True)
class Rater:
    """Rates the moments of one search.

    Attributes:
        calibration: of the kind of the scores; None: the bundle has none.
        evidence: of the search.
        modalities: the weights of the kinds of evidence.
        retrieved_scores: of the retrieved segments, which tell the spread of scores.
    """

    calibration: ScoreCalibration | None
    evidence: SearchEvidence
    modalities: Modalities
    retrieved_scores: NDArray[np.floating]

    @classmethod
    def of(
        cls,
        calibration: Calibration | None,
        evidence: SearchEvidence,
        modalities: Modalities,
        retrieved_scores: NDArray[np.floating],
        *,
        reranked: bool,
    ) -> "Rater":
        """The rater for a search with a calibration; `reranked` says whether the scores are final ones."""
        if calibration is None:
            return cls(None, evidence, modalities, retrieved_scores)
        fitted = calibration.final if reranked else calibration.first_stage
        return cls(fitted, evidence, modalities, retrieved_scores)

    def rated(self, spans: Sequence[ScoredSpan]) -> list[ScoredSpan]:
        """All moments of a search, best first, with probabilities and levels if there is a calibration.

        Args:
            spans: the moments, with the scores of their pictures and the lines that fit the query.
        """
        if not spans:
            return []
        visual = np.array([span.score for span in spans])
        found: list[tuple[float | None, Level | None]] = [(None, None)] * len(spans)
        if self.calibration is None:
            weighted = np.array([self._weighted_strength(span) for span in spans])
            terms = terms_by_spread(visual, weighted, self.retrieved_scores)
        else:
            # Pictures that do not count are no evidence, neither for nor against.
            shown = np.zeros(len(spans))
            if self.modalities.visual:
                shown = probabilities(self.calibration, visual, self.evidence)
            both = 1 - (1 - shown) * np.array([self._text_wrong(span) for span in spans])
            terms = score_rise(self.calibration, shown if self.modalities.visual else None, both)
            rounded = both.round(PROBABILITY_DECIMALS)
            found = list(zip(rounded.tolist(), levels(self.calibration, rounded), strict=True))
        rated = []
        for span, term, (probability, level) in zip(
            spans, terms.round(SCORE_DECIMALS).tolist(), found, strict=True
        ):
            # Lines add to a score; without any, nothing is added.
            added = term if span.texts else 0.0
            rated.append(
                replace(
                    span,
                    score=self.modalities.visual * span.score + added,
                    text_term=added,
                    visual_weight=self.modalities.visual,
                    probability=probability,
                    level=level,
                )
            )
        # Of moments with the same score, what is said in words comes first.
        return sorted(rated, key=lambda span: (-span.score, not span.texts))

    def _weighted_strength(self, span: ScoredSpan) -> float:
        """The strengths of a moment's strongest lines, each times the weight of its modality."""
        weight_of = self.modalities.weight_of
        return sum(weight_of(modality) * strength for modality, strength in strongest(span.texts).items())

    def _text_wrong(self, span: ScoredSpan) -> float:
        """The probability that no line of a moment means what was asked."""
        wrong = 1.0
        for modality, strength in strongest(span.texts).items():
            weight = self.modalities.weight_of(modality)
            # A weight above 1 counts a line as often.
            wrong *= (1 - _LINE * min(1.0, weight) * strength) ** max(1.0, weight)
        return wrong


def is_best_guess(groups: Sequence[Sequence[ScoredSpan]]) -> bool | None:
    """Whether no moment is at least of the level "medium"; None: there are no levels."""
    found = [span.level for group in groups for span in group]
    return None if None in found else all(level == "low" for level in found)
